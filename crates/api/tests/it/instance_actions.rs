//! `/servers/{id}/os-instance-actions`.

use drover_common::fault::Fault;
use drover_common::ids::Incarnation;
use drover_store::actions::{self, names};
use drover_store::servers::{self, Observer};
use http::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::fixture::{Cloud, golden, host_name, server_id};

/// The server 1 with a migration whose check on the source failed; returns the path of its action.
async fn failed(pool: PgPool) -> (Cloud, String) {
    let cloud = Cloud::with_a_server(pool).await;
    let request = cloud.live_migrate(server_id(1), None).await.header("x-openstack-request-id").to_owned();
    let action = cloud.open_migration(server_id(1)).await.action;
    let mut conn = cloud.store.connection().await.unwrap();
    let event = actions::begin_event(&mut conn, action, names::CONDUCTOR_LIVE_MIGRATE_INSTANCE, "control").await.unwrap();
    actions::end_event(&mut conn, event, None).await.unwrap();
    actions::begin_event(&mut conn, action, names::CHECK_SOURCE, "h1").await.unwrap();
    actions::fail(&mut conn, action, &Fault::precheck("the disk is gone")).await.unwrap();
    drop(conn);
    (cloud, format!("/v2.1/servers/{}/os-instance-actions/{request}", server_id(1)))
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_version_has_its_fields(pool: PgPool) {
    let (cloud, path) = failed(pool).await;
    let list = format!("/v2.1/servers/{}/os-instance-actions", server_id(1));
    let mut shown = json!({});
    for version in ["2.1", "2.51", "2.58", "2.62", "2.84"] {
        let admin = cloud.get(version, &path).await.json();
        let owner = cloud.ask_as("alice:p1", Method::GET, version, &path, None).await.json();
        shown[version] = json!({"list": cloud.get(version, &list).await.json(), "admin": admin, "owner": owner});
    }
    golden("instance_actions", &shown);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn pages_changes_and_what_is_not_there(pool: PgPool) {
    let (cloud, path) = failed(pool).await;
    let list = format!("/v2.1/servers/{}/os-instance-actions", server_id(1));
    let mut conn = cloud.store.connection().await.unwrap();
    for _ in 0..2 {
        let request = drover_common::ids::RequestId::random();
        actions::start(&mut conn, server_id(1), names::LIVE_MIGRATION_CANCEL, &request, "bob", "p1").await.unwrap();
    }
    drop(conn);
    let count = |version: &'static str, query: &'static str| {
        let (cloud, list) = (&cloud, &list);
        async move { cloud.get(version, &format!("{list}?{query}")).await.json()["instanceActions"].as_array().unwrap().len() }
    };
    assert_eq!(count("2.57", "limit=1").await, 3, "no pages before 2.58");
    assert_eq!(count("2.58", "limit=2").await, 2);
    assert_eq!(count("2.58", "limit=0").await, 0);
    assert_eq!(count("2.58", "changes-since=2999-01-01").await, 0);
    assert_eq!(count("2.66", "changes-before=2001-01-01").await, 0);
    let first = cloud.get("2.58", &format!("{list}?limit=2")).await.json();
    let next = first["links"][0]["href"].as_str().unwrap().trim_start_matches("http://api:8774").to_owned();
    let second = cloud.get("2.58", &next).await.json();
    assert_eq!(second["instanceActions"][0]["action"], "live-migration");

    let cases = [
        ("2.58", format!("{list}?marker=req-x"), "400 badRequest: Marker req-x could not be found."),
        ("2.58", format!("{list}?foo=1"), "400 badRequest: Additional properties are not allowed ('foo' was unexpected)"),
        (
            "2.58",
            format!("{list}?changes-before=2001-01-01"),
            "400 badRequest: Additional properties are not allowed ('changes-before' was unexpected)",
        ),
        ("2.1", format!("{list}/req-x"), "404 itemNotFound: Action req-x not found"),
        ("2.1", format!("{list}/%00"), "404 itemNotFound: Action \0 not found"),
        ("2.1", "/v2.1/servers/x/os-instance-actions".to_owned(), "404 itemNotFound: Instance x could not be found."),
    ];
    for (version, path, expected) in cases {
        assert_eq!(cloud.get(version, &path).await.refusal(), expected, "{path}");
    }

    // A deleted server keeps its history, from 2.21 on.
    let host = host_name("h1");
    let observer = Observer { host: &host, node: "h1.example", incarnation: Incarnation::random(), sequence: 2 };
    let mut conn = cloud.store.connection().await.unwrap();
    servers::gone(&mut conn, observer, server_id(1)).await.unwrap();
    drop(conn);
    assert_eq!(cloud.get("2.20", &path).await.status, 404);
    assert_eq!(cloud.get("2.21", &path).await.status, 200);
    assert_eq!(cloud.get("2.1", &format!("/v2.1/servers/{}", server_id(1))).await.status, 404);
    let deleted = cloud.get("2.1", "/v2.1/servers/detail?all_tenants=1&status=deleted").await.json();
    assert_eq!(deleted["servers"][0]["status"], "DELETED");
}
