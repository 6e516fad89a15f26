//! `os-migrateLive` on `/v2`: the base API's keys, spellings and texts.

use drover_common::server::VmState;
use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Answer, Cloud, golden, server_id};

async fn post(cloud: &Cloud, server: &str, arguments: &Value) -> Answer {
    let body = json!({"os-migrateLive": arguments});
    cloud.ask(Method::POST, "2.68", &format!("/v2/servers/{server}/action"), Some(&body)).await
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn bodies_are_read_as_the_base_api_did(pool: PgPool) {
    let cloud = Cloud::new(pool);
    let mut table = json!({});
    for arguments in [
        json!({"host": null, "block_migration": false, "disk_over_commit": false}),
        json!({"host": "h 2%s", "block_migration": " T ", "disk_over_commit": 0, "extra": 1}),
        json!({"host": null, "block_migration": false}),
        json!({"block_migration": false, "disk_over_commit": false}),
        json!({}),
        json!(null),
        json!("h2"),
        json!({"host": null, "block_migration": null, "disk_over_commit": false}),
        json!({"host": null, "block_migration": "auto", "disk_over_commit": false}),
        json!({"host": null, "block_migration": false, "disk_over_commit": 2}),
        json!({"host": null, "block_migration": false, "disk_over_commit": {"a": "b"}}),
    ] {
        let answer = post(&cloud, "x", &arguments).await;
        assert_eq!(answer.header("openstack-api-version"), "-", "the header of the request is not read");
        table[arguments.to_string()] = json!(answer.refusal());
    }
    golden("live_migrate_legacy_bodies", &table);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn refusals_use_the_base_apis_words(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let stopped = cloud.server_of(2, "h1", "p1", VmState::Stopped).await;
    let before = cloud.record().await;
    let fine = json!({"host": null, "block_migration": false, "disk_over_commit": false});
    let to = |host: &str| json!({"host": host, "block_migration": false, "disk_over_commit": false});

    post(&cloud, "nothing", &fine).await.assert_refusal("404 itemNotFound: Instance nothing could not be found.");
    let conflict = "409 conflictingRequest: Cannot 'os-migrateLive' while instance is in vm_state stopped";
    post(&cloud, &stopped.to_string(), &fine).await.assert_refusal(conflict);
    for host in ["nope", "h 2", "h2%s", "h\n2", "h2\u{7}"] {
        let answer = post(&cloud, &server_id(1).to_string(), &to(host)).await;
        answer.assert_refusal(&format!("400 badRequest: Compute host {host} could not be found."));
    }
    let body = json!({"os-migrateLive": fine});
    let path = format!("/v2/servers/{}/action", server_id(1));
    let member = cloud.ask_as("alice:p1", Method::POST, "2.1", &path, Some(&body)).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-migrate-server:migrate_live to be performed.");
    assert_eq!(cloud.record().await, before);
}
