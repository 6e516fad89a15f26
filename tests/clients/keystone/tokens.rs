//! Tokens that are good, wrong, expired, revoked; and no Keystone to ask.

use drover_testkit::wait_for;
use serde_json::json;

use super::{Keystone, serve, token};
use crate::cloud::{Cloud, SOON};
use crate::rest::{self, Answer};

/// What `GET /servers` answers to this token.
fn ask(keystone: &Keystone, token: &str) -> Answer {
    rest::get(&keystone.resource("/servers"), &[("x-auth-token", token)])
}

fn assert_refused(answer: &Answer) {
    assert_eq!((answer.status, answer.challenge.as_str()), (401, "Keystone uri=\"http://keystone.example:5000\""), "{answer:?}");
    let fault = json!({"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."});
    assert_eq!(answer.body, json!({"error": fault}));
}

#[test]
fn only_a_good_token_is_taken() {
    let cloud = Cloud::new();
    let keystone = Keystone::start(&cloud, &[]);
    let good = token(&keystone.url(), "reader", "one");
    assert_eq!(ask(&keystone, &good).status, 200);
    let cut = &good[..good.len() - 1];
    for wrong in ["", "admin", "wrong", cut, &good.replacen('A', "B", 1), &"x".repeat(4000)] {
        assert_refused(&ask(&keystone, wrong));
    }
    assert_refused(&rest::get(&keystone.resource("/servers"), &[]));
    // Whoever reads the version document has no token yet.
    assert_eq!(rest::get(&keystone.resource("/"), &[]).status, 200);
}

#[test]
fn an_expired_token_is_refused_also_when_it_was_good_before() {
    let cloud = Cloud::new();
    let keystone = Keystone::start(&cloud, &[]);
    let hasty = serve(3);
    let short = token(&format!("{}/v3", hasty.url()), "reader", "one");
    assert_eq!(ask(&keystone, &short).status, 200);
    wait_for("the token to expire", SOON, || ask(&keystone, &short).status == 401).expect("expired");
    assert_refused(&ask(&keystone, &short));
}

#[test]
fn a_revoked_token_is_refused_within_the_cache_time() {
    let cloud = Cloud::new();
    let keystone = Keystone::start(&cloud, &[("KEYSTONE_AUTHTOKEN__TOKEN_CACHE_TIME", "2")]);
    let (seen, unseen) = (token(&keystone.url(), "reader", "one"), token(&keystone.url(), "reader", "one"));
    assert_eq!(ask(&keystone, &seen).status, 200);
    for revoked in [&seen, &unseen] {
        let url = format!("{}/auth/tokens", keystone.url());
        assert_eq!(rest::delete(&url, &[("x-auth-token", revoked), ("x-subject-token", revoked)]).status, 204);
    }
    assert_refused(&ask(&keystone, &unseen));
    wait_for("the revocation to be respected", SOON, || ask(&keystone, &seen).status == 401).expect("refused");
    assert_refused(&ask(&keystone, &seen));
}

#[test]
fn without_keystone_only_those_it_vouched_for_get_in() {
    let cloud = Cloud::new();
    let mut keystone = Keystone::start(&cloud, &[]);
    let (known, unknown) = (token(&keystone.url(), "reader", "one"), token(&keystone.url(), "reader", "one"));
    assert_eq!(ask(&keystone, &known).status, 200);
    keystone.server.stop();
    assert_eq!(ask(&keystone, &known).status, 200);
    for token in [unknown.as_str(), "wrong"] {
        let answer = ask(&keystone, token);
        assert_eq!((answer.status, &answer.body["serviceUnavailable"]["code"]), (503, &json!(503)), "{answer:?}");
    }
}
