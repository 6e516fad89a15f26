use std::collections::VecDeque;
use std::sync::Mutex;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use drover_common::config;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

/// A Keystone that answers as it was told, and remembers what it was asked: method, our token, the caller's.
#[derive(Clone, Default)]
struct Fake(Arc<Script>);

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<StatusCode>>,
    asked: Mutex<Vec<String>>,
}

impl Fake {
    /// Listens, and gives these statuses one after the other.
    async fn listen(answers: &[u16]) -> (Self, Keystone) {
        let fake = Self::default();
        fake.then(answers);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keystone = keystone(&format!("http://{}/v3/", listener.local_addr().unwrap()), "");
        let app = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (fake, keystone)
    }

    fn then(&self, answers: &[u16]) {
        self.0.answers.lock().unwrap().extend(answers.iter().map(|&status| StatusCode::from_u16(status).unwrap()));
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.asked.lock().unwrap())
    }
}

async fn answer(State(Fake(script)): State<Fake>, request: Request) -> Response {
    let header = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    let nth = {
        let mut asked = script.asked.lock().unwrap();
        asked.push(format!("{} {} {}", request.method(), header("x-auth-token"), header("x-subject-token")));
        asked.len()
    };
    let status = script.answers.lock().unwrap().pop_front().unwrap();
    if request.method() == Method::POST {
        return (status, [("x-subject-token", format!("own{nth}"))], "{}").into_response();
    }
    let date = "Tue, 24 Nov 2026 10:00:00 GMT";
    let token =
        json!({"user": {"id": "u"}, "project": {"id": "p"}, "roles": [{"name": "admin"}], "expires_at": "2026-11-24T10:01:00Z"});
    (status, [("date", date)], json!({"token": token}).to_string()).into_response()
}

fn keystone(auth_url: &str, more: &str) -> Keystone {
    Keystone::new(&section(auth_url, more).unwrap()).unwrap()
}

fn section(auth_url: &str, more: &str) -> Result<KeystoneSection, ConfigError> {
    let text = format!(
        "[keystone_authtoken]\nauth_url = \"{auth_url}\"\nusername = \"nova\"\npassword = \"hunter2\"\nproject_name = \"service\"\n{more}"
    );
    config::from_toml(&text).map(|config| config.keystone_authtoken)
}

async fn ask(keystone: &Keystone, token: &'static str) -> u16 {
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-auth-token"), HeaderValue::from_static(token))]);
    keystone.caller(&headers).await.map_or_else(|error| error.status().as_u16(), |_| 200)
}

#[tokio::test]
async fn a_good_token_is_asked_about_once() {
    let (fake, keystone) = Fake::listen(&[201, 200]).await;
    assert_eq!((ask(&keystone, "good").await, ask(&keystone, "good").await), (200, 200));
    assert_eq!(fake.asked(), ["POST - -", "GET own1 good"]);
}

#[tokio::test]
async fn a_bad_token_is_refused_each_time_with_the_way_to_keystone() {
    let (fake, keystone) = Fake::listen(&[201, 404, 404]).await;
    assert_eq!((ask(&keystone, "bad").await, ask(&keystone, "bad").await), (401, 401));
    assert_eq!(fake.asked().len(), 3);
    let error = keystone.caller(&HeaderMap::new()).await.unwrap_err();
    let ApiError::Unauthorized { challenge } = error else { panic!("{error:?}") };
    let challenge = challenge.to_str().unwrap();
    assert!(challenge.starts_with("Keystone uri=\"http://127.0.0.1:") && challenge.ends_with("/v3/\""), "{challenge}");
}

#[tokio::test]
async fn our_own_token_is_renewed_once_when_it_is_refused() {
    let (fake, keystone) = Fake::listen(&[201, 404, 401, 201, 200]).await;
    assert_eq!((ask(&keystone, "first").await, ask(&keystone, "second").await), (401, 200));
    assert_eq!(fake.asked(), ["POST - -", "GET own1 first", "GET own1 second", "POST - -", "GET own4 second"]);
    fake.then(&[401, 201, 401]);
    assert_eq!(ask(&keystone, "third").await, 503);
}

#[tokio::test]
async fn without_keystones_word_nobody_is_let_in() {
    let (fake, keystone) = Fake::listen(&[401]).await;
    assert_eq!(ask(&keystone, "a").await, 503, "our password is wrong");
    fake.then(&[201, 403]);
    assert_eq!(ask(&keystone, "a").await, 503, "we may not ask");
    fake.then(&[500]);
    assert_eq!(ask(&keystone, "a").await, 503, "it failed");
    assert_eq!(ask(&self::keystone("http://127.0.0.1:9/v3", ""), "a").await, 503, "nobody listens");
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for_longer_than_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let keystone = keystone(&format!("http://{}", listener.local_addr().unwrap()), "http_connect_timeout = 1");
    assert_eq!(ask(&keystone, "a").await, 503);
}

#[tokio::test]
async fn nothing_is_remembered_when_the_cache_time_is_zero() {
    let (fake, mut keystone) = Fake::listen(&[201, 200, 404]).await;
    keystone.token_cache_time = Duration::ZERO;
    assert_eq!((ask(&keystone, "a").await, ask(&keystone, "a").await), (200, 401));
    assert_eq!(fake.asked().len(), 3);
}

#[test]
fn what_is_missing_or_wrong_is_refused_by_name() {
    let refusal = |section: &KeystoneSection| Keystone::new(section).unwrap_err().to_string();
    let mut config = section("http://keystone:5000/v3", "").unwrap();
    config.password = None;
    assert!(refusal(&config).contains("[keystone_authtoken] password"));
    for url in ["", "keystone:5000", "ftp://keystone", "http://"] {
        assert!(refusal(&section(url, "").unwrap()).contains("[keystone_authtoken] auth_url"), "{url}");
    }
    let cafile = section("https://keystone", "cafile = \"/nowhere.pem\"").unwrap();
    assert!(refusal(&cafile).contains("[keystone_authtoken] cafile"));
}

#[test]
fn the_password_is_not_shown() {
    let keystone = keystone("http://keystone:5000", "");
    assert!(!format!("{keystone:?}").contains("hunter2"));
}
