//! `/os-keypairs`.

use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Answer, Cloud, golden};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOWKDiUe3e/7tIR1ANtvGXP6v94+PEB09ZDcVG7HZ64v alice";

async fn create(cloud: &Cloud, token: &str, version: &str, key_pair: Value) -> Answer {
    cloud.ask_as(token, Method::POST, version, "/v2.1/os-keypairs", Some(&json!({"keypair": key_pair}))).await
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_version_has_its_fields_and_statuses(pool: PgPool) {
    let cloud = Cloud::new(pool);
    let mut shown = json!({});
    for version in ["2.1", "2.2", "2.10", "2.35", "2.92"] {
        let made = create(&cloud, "alice:p1", version, json!({"name": "one", "public_key": KEY})).await;
        let list = cloud.ask_as("alice:p1", Method::GET, version, "/v2.1/os-keypairs", None).await.json();
        let one = cloud.ask_as("alice:p1", Method::GET, version, "/v2.1/os-keypairs/one", None).await.json();
        let gone = cloud.ask_as("alice:p1", Method::DELETE, version, "/v2.1/os-keypairs/one", None).await;
        let statuses = [made.status.as_u16(), gone.status.as_u16()];
        let mut one = one;
        one["keypair"]["id"] = json!("[id]");
        shown[version] = json!({"create": made.json(), "list": list, "show": one, "statuses": statuses});
    }
    golden("keypairs", &shown);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_key_pair_is_its_users_and_admins_see_those_of_others_since_2_10(pool: PgPool) {
    let cloud = Cloud::new(pool);
    assert_eq!(create(&cloud, "alice:p1", "2.2", json!({"name": "mine", "public_key": KEY})).await.status, 201);
    let twice = create(&cloud, "alice:p1", "2.2", json!({"name": "mine", "public_key": KEY})).await;
    twice.assert_refusal("409 conflictingRequest: Key pair 'mine' already exists.");
    assert_eq!(create(&cloud, "admin", "2.10", json!({"name": "hers", "public_key": KEY, "user_id": "alice"})).await.status, 201);
    let forbidden = create(&cloud, "bob:p1", "2.10", json!({"name": "x", "public_key": KEY, "user_id": "alice"})).await;
    forbidden.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-keypairs:create to be performed.");
    let path = "/v2.1/os-keypairs/mine";
    cloud
        .ask_as("bob:p1", Method::GET, "2.2", path, None)
        .await
        .assert_refusal("404 itemNotFound: Keypair mine not found for user bob");
    let others = format!("{path}?user_id=alice");
    let refused = cloud.ask_as("bob:p1", Method::GET, "2.10", &others, None).await;
    refused.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-keypairs:show to be performed.");
    assert_eq!(cloud.get("2.10", &others).await.json()["keypair"]["user_id"], "alice");
    let unread = cloud.get("2.9", &others).await;
    unread.assert_refusal("404 itemNotFound: Keypair mine not found for user admin");
    let names = |query: &'static str| {
        let cloud = &cloud;
        async move {
            let listed = cloud.ask_as("alice:p1", Method::GET, "2.35", &format!("/v2.1/os-keypairs?{query}"), None).await.json();
            let names: Vec<Value> = listed["keypairs"].as_array().unwrap().iter().map(|k| k["keypair"]["name"].clone()).collect();
            (names, listed["keypairs_links"][0]["href"].as_str().unwrap_or_default().to_owned())
        }
    };
    let (first, next) = names("limit=1").await;
    assert_eq!((first, next.as_str()), (vec![json!("hers")], "http://api:8774/v2.1/os-keypairs?limit=1&marker=hers"));
    assert_eq!(names("limit=2&marker=hers").await, (vec![json!("mine")], String::new()));
    let unknown = cloud.ask_as("alice:p1", Method::GET, "2.35", "/v2.1/os-keypairs?marker=x", None).await;
    unknown.assert_refusal("400 badRequest: marker [x] not found");
    cloud.ask_as("alice:p1", Method::DELETE, "2.2", path, None).await.assert_empty(204);
    let gone = cloud.ask_as("alice:p1", Method::DELETE, "2.2", path, None).await;
    gone.assert_refusal("404 itemNotFound: Keypair mine not found for user alice");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn only_public_ssh_keys_are_taken_and_none_is_generated(pool: PgPool) {
    let cloud = Cloud::new(pool);
    for (version, key_pair, expected) in [
        (
            "2.1",
            json!({"name": "a"}),
            "Keypair data is invalid: keys are not generated here: make one (ssh-keygen) and send its public_key",
        ),
        ("2.1", json!({"name": "a", "public_key": "nonsense"}), "Keypair data is invalid: failed to generate fingerprint"),
        ("2.1", json!({"name": "a/b", "public_key": KEY}), "Keypair data is invalid: Keypair name contains unsafe characters"),
        ("2.91", json!({"name": "a@b", "public_key": KEY}), "Keypair data is invalid: Keypair name contains unsafe characters"),
        ("2.2", json!({"name": "a", "public_key": KEY, "type": "x509"}), "Keypair data is invalid: only ssh keys are stored here"),
        (
            "2.1",
            json!({"name": "a", "type": "ssh"}),
            "Invalid input for field/attribute keypair. Value: {'name': 'a', 'type': 'ssh'}. Additional properties are not allowed ('type' was unexpected)",
        ),
        (
            "2.92",
            json!({"name": "a"}),
            "Invalid input for field/attribute keypair. Value: {'name': 'a'}. 'public_key' is a required property",
        ),
    ] {
        create(&cloud, "alice:p1", version, key_pair).await.assert_refusal(&format!("400 badRequest: {expected}"));
    }
    assert_eq!(create(&cloud, "alice:p1", "2.92", json!({"name": "a@b.c", "public_key": KEY})).await.status, 201);
}
