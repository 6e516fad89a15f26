//! `/os-services`.

use drover_common::migration::Event;
use drover_common::rpc::latest::ToConductor;
use drover_store::services;
use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Answer, Cloud, golden, host_name, server_id, to_conductor};

async fn two(pool: PgPool) -> Cloud {
    let cloud = Cloud::with_a_server(pool).await;
    let mut conn = cloud.store.connection().await.unwrap();
    services::seen(&mut conn, &host_name("control"), services::CONDUCTOR).await.unwrap();
    drop(conn);
    cloud
}

async fn put(cloud: &Cloud, version: &str, what: &str, body: Value) -> Answer {
    cloud.ask(Method::PUT, version, &format!("/v2.1/os-services/{what}"), Some(&body)).await
}

async fn uuid_of(cloud: &Cloud, host: &str) -> String {
    let list = cloud.get("2.53", &format!("/v2.1/os-services?host={host}")).await.json();
    list["services"][0]["id"].as_str().unwrap().to_owned()
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_version_has_its_fields(pool: PgPool) {
    let cloud = two(pool).await;
    let mut shown = json!({});
    for version in ["2.1", "2.11", "2.53", "2.69", "2.84"] {
        shown[version] = cloud.get(version, "/v2.1/os-services").await.json();
    }
    shown["2.1 of h2"] = cloud.get("2.1", "/v2.1/os-services?host=h2&binary=nova-compute").await.json();
    shown["2.1 of nobody"] = cloud.get("2.1", "/v2.1/os-services?host=nope").await.json();
    golden("services", &shown);
    let member = cloud.ask_as("alice:p1", Method::GET, "2.1", "/v2.1/os-services", None).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-services:list to be performed.");
    let closed = cloud.get("2.75", "/v2.1/os-services?foo=1").await;
    closed.assert_refusal("400 badRequest: Additional properties are not allowed ('foo' was unexpected)");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn before_2_53_the_path_says_what_and_the_body_with_whom(pool: PgPool) {
    let cloud = two(pool).await;
    let mut shown = Vec::new();
    for (version, what, body) in [
        ("2.1", "disable", json!({"host": "h1", "binary": "nova-compute"})),
        ("2.1", "enable", json!({"host": "h1", "binary": "nova-compute"})),
        ("2.1", "disable-log-reason", json!({"host": "h1", "binary": "nova-compute", "disabled_reason": "fan"})),
        ("2.1", "disable", json!({"host": "h1", "binary": "nova-compute"})),
        ("2.11", "force-down", json!({"host": "h2", "binary": "nova-compute", "forced_down": "True"})),
        ("2.11", "force-down", json!({"host": "h2", "binary": "nova-compute", "forced_down": false})),
        ("2.1", "force-down", json!({"host": "h2", "binary": "nova-compute"})),
        ("2.1", "force-down", json!({"host": "h2", "binary": "nova-compute", "forced_down": true})),
        ("2.11", "force-down", json!({"host": "h2", "binary": "nova-compute"})),
        ("2.1", "disable-log-reason", json!({"host": "h1", "binary": "nova-compute"})),
        ("2.1", "reboot", json!({"host": "h1", "binary": "nova-compute"})),
        ("2.1", "enable", json!({"host": "nope", "binary": "nova-compute"})),
        ("2.1", "enable", json!({"host": "control", "binary": "nova-conductor"})),
        ("2.1", "enable", json!({"host": "h1"})),
        ("2.1", "enable", json!({"host": "h 1", "binary": "nova-compute"})),
    ] {
        let answer = put(&cloud, version, what, body.clone()).await;
        let said = if answer.status == 200 { answer.json() } else { json!(answer.refusal()) };
        let now = cloud.get("2.11", "/v2.1/os-services?binary=nova-compute").await.json();
        let now: Vec<Value> = now["services"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| json!([s["status"], s["disabled_reason"], s["forced_down"], s["state"]]))
            .collect();
        shown.push(json!({"put": [version, what, body], "said": said, "now": now}));
    }
    golden("services_put_by_name", &json!(shown));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn from_2_53_on_the_path_says_with_whom(pool: PgPool) {
    let cloud = two(pool).await;
    let (h1, control) = (uuid_of(&cloud, "h1").await, uuid_of(&cloud, "control").await);
    let nobody = "00000000-0000-0000-0000-000000000000".to_owned();
    let mut shown = Vec::new();
    for (id, body) in [
        (&h1, json!({"status": "disabled", "disabled_reason": "fan"})),
        (&h1, json!({"forced_down": true})),
        (&h1, json!({"status": "enabled", "forced_down": "off"})),
        (&h1, json!({})),
        (&h1, json!({"disabled_reason": "fan"})),
        (&h1, json!({"status": "enabled", "disabled_reason": "fan"})),
        (&h1, json!({"status": "foo"})),
        (&h1, json!({"status": "enabled", "foo": 1})),
        (&control, json!({"status": "disabled"})),
        (&nobody, json!({"status": "disabled"})),
        (&"5".to_owned(), json!({"status": "disabled"})),
    ] {
        let answer = put(&cloud, "2.53", id, body.clone()).await;
        let said = if answer.status == 200 { answer.json() } else { json!(answer.refusal()) };
        shown.push(json!({"put": body, "said": said}));
    }
    golden("services_put_by_uuid", &json!(shown));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn forcing_a_host_down_wakes_the_migrations_that_wait_for_it(pool: PgPool) {
    let cloud = two(pool).await;
    cloud.live_migrate(server_id(1), Some("h2")).await.assert_empty(202);
    let id = cloud.open_migration(server_id(1)).await.id;
    cloud.advance(id, Event::Claimed, |row| row.destination = Some(host_name("h2"))).await;
    cloud.advance(id, Event::StartGranted, |_| {}).await;
    let (_bus, mut inbox) = cloud.conductor();
    let h2 = uuid_of(&cloud, "h2").await;
    assert_eq!(put(&cloud, "2.53", &h2, json!({"forced_down": true})).await.status, 200);
    assert_eq!(to_conductor(&inbox.recv().await.unwrap()), ToConductor::Wake { migration: id });
}

async fn delete(cloud: &Cloud, version: &str, id: &str) -> Answer {
    cloud.ask(Method::DELETE, version, &format!("/v2.1/os-services/{id}"), None).await
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_service_is_deleted_when_nothing_depends_on_it(pool: PgPool) {
    let cloud = two(pool).await;
    let (h1, h2) = (uuid_of(&cloud, "h1").await, uuid_of(&cloud, "h2").await);
    let hosting = "409 conflictingRequest: Unable to delete compute service that is hosting instances. Migrate or delete the instances first.";
    delete(&cloud, "2.53", &h1).await.assert_refusal(hosting);
    cloud.live_migrate(server_id(1), Some("h2")).await.assert_empty(202);
    let migrating = "409 conflictingRequest: Unable to delete compute service that has in-progress migrations. Wait for those of host h2, or abort them.";
    delete(&cloud, "2.53", &h2).await.assert_refusal(migrating);
    let id = cloud.open_migration(server_id(1)).await.id;
    cloud.advance(id, Event::Refused, |_| {}).await;
    let member = cloud.ask_as("alice:p1", Method::DELETE, "2.53", &format!("/v2.1/os-services/{h2}"), None).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-services:delete to be performed.");
    delete(&cloud, "2.53", &h2).await.assert_empty(204);
    delete(&cloud, "2.53", &h2).await.assert_refusal(&format!("404 itemNotFound: Service {h2} could not be found."));
    assert_eq!(cloud.get("2.1", "/v2.1/os-hypervisors").await.json()["hypervisors"].as_array().unwrap().len(), 1);
    delete(&cloud, "2.53", "5").await.assert_refusal("400 badRequest: Invalid uuid 5");
    delete(&cloud, "2.1", "x").await.assert_refusal("400 badRequest: Invalid input received: id must be an integer");
    delete(&cloud, "2.1", "99").await.assert_refusal("404 itemNotFound: Service 99 could not be found.");
    let conductor = cloud.get("2.1", "/v2.1/os-services?host=control").await.json()["services"][0]["id"].clone();
    delete(&cloud, "2.1", &conductor.to_string()).await.assert_empty(204);
    assert_eq!(cloud.get("2.1", "/v2.1/os-services").await.json()["services"].as_array().unwrap().len(), 1);
}
