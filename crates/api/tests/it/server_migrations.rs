//! `/servers/{id}/migrations`.

use drover_common::migration::{Event, Progress};
use drover_common::rpc::latest::ToConductor;
use drover_common::server::VmState;
use drover_store::{actions, migrations};
use http::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::fixture::{Cloud, golden, host_name, server_id, to_conductor};

/// The server 1 with a running migration to h2.
async fn running(pool: PgPool) -> (Cloud, migrations::Migration) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.live_migrate(server_id(1), Some("h2")).await.assert_empty(202);
    let migration = cloud.open_migration(server_id(1)).await;
    let claimed = |row: &mut migrations::Migration| {
        row.destination = Some(host_name("h2"));
        row.source_node = Some("h1.example".to_owned());
        row.dest_node = Some("h2.example".to_owned());
    };
    cloud.advance(migration.id, Event::Claimed, claimed).await;
    cloud.advance(migration.id, Event::StartGranted, |_| {}).await;
    let migration = cloud.open_migration(server_id(1)).await;
    (cloud, migration)
}

fn base(n: u128) -> String {
    format!("/v2.1/servers/{}/migrations", server_id(n))
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_version_has_its_fields(pool: PgPool) {
    let (cloud, migration) = running(pool).await;
    let mut shown = json!({});
    for version in ["2.23", "2.59", "2.80", "2.84"] {
        let one = cloud.get(version, &format!("{}/{}", base(1), migration.id)).await.json();
        let list = cloud.get(version, &base(1)).await.json();
        assert_eq!(list["migrations"], json!([one["migration"]]));
        shown[version] = one;
    }
    let progress = Progress { memory_total: 100, memory_processed: 60, memory_remaining: 40, disk_total: 7, ..Progress::default() };
    let mut conn = cloud.store.connection().await.unwrap();
    let wrote = migrations::record_progress(
        &mut conn,
        migration.id,
        migration.attempt,
        &migration.source,
        &progress,
        std::time::Duration::from_secs(10),
    );
    assert!(wrote.await.unwrap().is_some());
    shown["2.23 with a sample"] = cloud.get("2.23", &base(1)).await.json();
    golden("server_migration", &shown);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn only_four_statuses_are_in_progress(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.live_migrate(server_id(1), Some("h2")).await.assert_empty(202);
    let id = cloud.open_migration(server_id(1)).await.id;
    let shown = || async {
        let list = cloud.get("2.23", &base(1)).await.json()["migrations"].as_array().unwrap().len();
        let one = cloud.get("2.23", &format!("{}/{id}", base(1))).await;
        if one.status == 200 {
            format!("{list} {}", one.json()["migration"]["status"].as_str().unwrap())
        } else {
            format!("{list} {}", one.refusal())
        }
    };
    let gone = format!("0 404 itemNotFound: Live migration {id} for server {} is not in progress.", server_id(1));
    assert_eq!(shown().await, gone, "accepted");
    cloud.advance(id, Event::Claimed, |row| row.destination = Some(host_name("h2"))).await;
    assert_eq!(shown().await, "1 preparing");
    cloud.advance(id, Event::StartGranted, |_| {}).await;
    assert_eq!(shown().await, "1 running");
    cloud.advance(id, Event::RollBack, |_| {}).await;
    assert_eq!(shown().await, "1 running", "Nova has no word for rolling back");
    cloud.advance(id, Event::RolledBackFailed, |_| {}).await;
    assert_eq!(shown().await, gone, "failed");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn what_is_not_there_is_said_in_novas_words(pool: PgPool) {
    let (cloud, migration) = running(pool).await;
    cloud.server(2, "h1").await;
    for (path, expected) in [
        ("/v2.1/servers/x/migrations".to_owned(), "Instance x could not be found.".to_owned()),
        (format!("{}/999", base(1)), format!("In-progress live migration 999 is not found for server {}.", server_id(1))),
        (format!("{}/x", base(1)), format!("In-progress live migration x is not found for server {}.", server_id(1))),
        (
            format!("{}/{}", base(1), migration.uuid),
            format!("In-progress live migration {} is not found for server {}.", migration.uuid, server_id(1)),
        ),
        (
            format!("{}/{}", base(2), migration.id),
            format!("In-progress live migration {} is not found for server {}.", migration.id, server_id(2)),
        ),
    ] {
        cloud.get("2.23", &path).await.assert_refusal(&format!("404 itemNotFound: {expected}"));
    }
    let owner = cloud.ask_as("alice:p1", Method::GET, "2.23", &base(1), None).await;
    owner.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:servers:migrations:index to be performed.");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_abort_is_a_wish_on_the_row_and_a_nudge(pool: PgPool) {
    let (cloud, migration) = running(pool).await;
    let (_bus, mut inbox) = cloud.conductor();
    let path = format!("{}/{}", base(1), migration.id);
    let answer = cloud.ask(Method::DELETE, "2.24", &path, None).await;
    answer.assert_empty(202);
    let wished = cloud.open_migration(server_id(1)).await;
    assert_eq!((wished.abort_requested_by.as_deref(), wished.revision), (Some("admin"), migration.revision));
    assert_eq!(to_conductor(&inbox.recv().await.unwrap()), ToConductor::Wake { migration: migration.id });
    let mut conn = cloud.store.connection().await.unwrap();
    let action = actions::get(&mut conn, server_id(1), answer.header("x-openstack-request-id")).await.unwrap().unwrap();
    assert_eq!(action.action, "live_migration_cancel");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_abort_is_refused_in_novas_words(pool: PgPool) {
    let (cloud, migration) = running(pool).await;
    cloud.server(2, "h1").await;
    let server = server_id(1);
    let delete = |version: &'static str, path: String| {
        let cloud = &cloud;
        async move { cloud.ask(Method::DELETE, version, &path, None).await }
    };
    let before = cloud.record().await;
    let idle = format!("409 conflictingRequest: Instance {} is in an invalid state for 'abort live migration'", server_id(2));
    delete("2.24", format!("{}/1", base(2))).await.assert_refusal(&idle);
    for unknown in ["999", "x"] {
        let expected = format!("404 itemNotFound: Migration {unknown} not found for instance {server}");
        delete("2.24", format!("{}/{unknown}", base(1))).await.assert_refusal(&expected);
    }
    assert_eq!(cloud.record().await, before);

    // From 2.65 on also before it runs, but never after the switch-over.
    let third = cloud.server(3, "h1").await;
    cloud.live_migrate(third, None).await.assert_empty(202);
    let early = cloud.open_migration(third).await.id;
    let path = |id| format!("{}/{id}", base(3));
    let refused = |status: &str, id| {
        format!(
            "400 badRequest: Migration {id} state of instance {third} is {status}. Cannot abort live migration while the migration is in \
             this state."
        )
    };
    delete("2.65", path(early)).await.assert_refusal(&refused("accepted", early));
    cloud.advance(early, Event::NoSlot, |_| {}).await;
    delete("2.64", path(early)).await.assert_refusal(&refused("queued", early));
    delete("2.65", path(early)).await.assert_empty(202);
    cloud.advance(migration.id, Event::PostCopyStarted, |_| {}).await;
    let answer = delete("2.65", format!("{}/{}", base(1), migration.id)).await;
    assert!(answer.refusal().contains("is running (post-copy). Cannot abort"), "{}", answer.refusal());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn force_complete_is_a_wish_too_for_running_migrations_only(pool: PgPool) {
    let (cloud, migration) = running(pool).await;
    let post = |n: u128, id: String, body: serde_json::Value| {
        let cloud = &cloud;
        async move { cloud.ask(Method::POST, "2.22", &format!("{}/{id}/action", base(n)), Some(&body)).await }
    };
    let force = || json!({"force_complete": null});
    let id = migration.id.to_string();
    let server = server_id(1);
    cloud.server(2, "h1").await;
    cloud.server_of(3, "h1", "p1", VmState::Paused).await;
    let before = cloud.record().await;
    for (n, mid, body, expected) in [
        (
            1,
            id.as_str(),
            json!({"force_complete": {}}),
            "400 badRequest: Invalid input for field/attribute force_complete. Value: {}. {} is not of type 'null'".to_owned(),
        ),
        (
            1,
            &id,
            json!({"force_complete": "null"}),
            "400 badRequest: Invalid input for field/attribute force_complete. Value: null. 'null' is not of type 'null'"
                .to_owned(),
        ),
        (1, &id, json!({"foo": null}), "400 badRequest: There is no such action: foo".to_owned()),
        (1, &id, json!({}), "400 badRequest: Malformed request body".to_owned()),
        (1, "999", force(), format!("400 badRequest: Migration 999 not found for instance {server}")),
        (1, "x", force(), format!("400 badRequest: Migration x not found for instance {server}")),
        (2, "1", force(), format!("409 conflictingRequest: Instance {} is in an invalid state for 'force_complete'", server_id(2))),
        (
            3,
            "1",
            force(),
            format!("409 conflictingRequest: Cannot 'force_complete' instance {} while it is in vm_state paused", server_id(3)),
        ),
    ] {
        post(n, mid.to_owned(), body).await.assert_refusal(&expected);
    }
    assert_eq!(cloud.record().await, before);

    post(1, id.clone(), force()).await.assert_empty(202);
    assert_eq!(cloud.open_migration(server).await.force_complete_requested_by.as_deref(), Some("admin"));
    cloud.advance(migration.id, Event::RollBack, |_| {}).await;
    post(1, id.clone(), force()).await.assert_refusal(&format!(
        "400 badRequest: Migration {id} state of instance {server} is rolling-back. Cannot force complete while the migration is in this \
         state."
    ));
}
