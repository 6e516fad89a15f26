//! `/os-migrations`.

use drover_common::fault::Fault;
use drover_common::migration::Event;
use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Cloud, golden, host_name, server_id};

/// Three migrations: of server 1 running to h2, of server 2 refused, of server 3 accepted.
async fn three(pool: PgPool) -> Cloud {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.server(2, "h2").await;
    cloud.server(3, "h1").await;
    for n in 1..=3 {
        cloud.live_migrate(server_id(n), None).await.assert_empty(202);
    }
    let id = cloud.open_migration(server_id(1)).await.id;
    cloud.advance(id, Event::Claimed, |row| row.destination = Some(host_name("h2"))).await;
    cloud.advance(id, Event::StartGranted, |_| {}).await;
    let id = cloud.open_migration(server_id(2)).await.id;
    cloud.advance(id, Event::Refused, |row| row.fault = Some(Fault::no_valid_host(""))).await;
    cloud
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_version_has_its_fields(pool: PgPool) {
    let cloud = three(pool).await;
    let mut shown = json!({});
    for version in ["2.1", "2.23", "2.59", "2.80", "2.84"] {
        shown[version] = cloud.get(version, "/v2.1/os-migrations").await.json();
    }
    golden("os_migrations", &shown);
}

async fn servers(cloud: &Cloud, version: &str, query: &str) -> Value {
    let answer = cloud.get(version, &format!("/v2.1/os-migrations?{query}")).await;
    if answer.status != 200 {
        return json!(answer.refusal());
    }
    let migrations = answer.json()["migrations"].as_array().unwrap().clone();
    migrations.iter().map(|migration| migration["instance_uuid"].as_str().unwrap().chars().last().unwrap().to_string()).collect()
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn filters_find_what_they_say(pool: PgPool) {
    let cloud = three(pool).await;
    let mut table = json!({});
    for (version, query) in [
        ("2.1", ""),
        ("2.59", ""),
        ("2.1", "host=h2"),
        ("2.1", "host=h2&source_compute=h1"),
        ("2.1", "source_compute=h2"),
        ("2.1", "status=running"),
        ("2.1", "status=rolling-back"),
        ("2.1", "status=nothing"),
        ("2.1", "instance_uuid=00000000-0000-0000-0000-000000000003"),
        ("2.1", "instance_uuid=3"),
        ("2.1", "migration_type=live-migration"),
        ("2.1", "migration_type=resize"),
        ("2.1", "hidden=1"),
        ("2.1", "limit=1"),
        ("2.1", "foo=1"),
        ("2.59", "foo=1"),
        ("2.59", "limit=1"),
        ("2.59", "limit=x"),
        ("2.59", "limit=1&limit=2"),
        ("2.59", "marker=foo"),
        ("2.59", "changes-since=2001-01-01"),
        ("2.59", "changes-since=2999-01-01"),
        ("2.59", "changes-since=x"),
        ("2.59", "changes-before=2001-01-01"),
        ("2.66", "changes-before=2001-01-01"),
        ("2.66", "changes-since=2002-01-01&changes-before=2001-01-01"),
        ("2.79", "user_id=admin"),
        ("2.80", "user_id=admin"),
        ("2.80", "user_id=bob"),
        ("2.80", "project_id=admin"),
        ("2.80", "project_id=p1"),
    ] {
        table[format!("{version} {query}")] = servers(&cloud, version, query).await;
    }
    golden("os_migrations_filters", &table);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn pages_are_linked_by_uuid(pool: PgPool) {
    let cloud = three(pool).await;
    let first = cloud.get("2.59", "/v2.1/os-migrations?limit=2").await.json();
    let last = first["migrations"][1]["uuid"].as_str().unwrap();
    let next = first["migrations_links"][0]["href"].as_str().unwrap();
    assert_eq!(next, format!("http://api:8774/v2.1/os-migrations?limit=2&marker={last}"));
    let second = cloud.get("2.59", next.trim_start_matches("http://api:8774")).await.json();
    assert_eq!(second["migrations"].as_array().unwrap().len(), 1);
    assert_eq!(second.get("migrations_links"), None);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn members_may_not_list_them(pool: PgPool) {
    let cloud = three(pool).await;
    let member = cloud.ask_as("alice:p1", Method::GET, "2.80", "/v2.1/os-migrations", None).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-migrations:index to be performed.");
}
