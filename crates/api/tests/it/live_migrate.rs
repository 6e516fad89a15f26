//! `os-migrateLive` from 2.34 on: what is accepted, what is refused, what is written.

use drover_common::fault::Fault;
use drover_common::ids::RequestId;
use drover_common::migration::{Event, MigrationStatus};
use drover_common::rpc::latest::{MigrateServer, ToConductor};
use drover_common::server::{TaskState, VmState};
use drover_store::{actions, outbox, servers};
use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Answer, Cloud, golden, host_name, server_id, to_conductor, wait_for};

fn arguments(arguments: &Value) -> Value {
    json!({"os-migrateLive": arguments})
}

async fn post(cloud: &Cloud, version: &str, server: &str, body: &Value) -> Answer {
    cloud.ask(Method::POST, version, &format!("/v2.1/servers/{server}/action"), Some(body)).await
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn one_transaction_makes_it_durable_and_a_conductor_hears_of_it(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let (_bus, mut inbox) = cloud.conductor();
    let answer = cloud.live_migrate(server_id(1), Some("h2")).await;
    answer.assert_empty(202);

    let migration = cloud.open_migration(server_id(1)).await;
    assert_eq!(migration.status, MigrationStatus::Accepted);
    assert_eq!((migration.source.as_str(), migration.requested_host.clone()), ("h1", Some(host_name("h2"))));
    assert_eq!((migration.destination.clone(), migration.skip_scheduler), (None, false), "the scheduler has not accepted it yet");
    assert_eq!((migration.block_migration, migration.disk_over_commit), (None, None));
    assert_eq!((migration.user_id.as_str(), migration.project_id.as_str()), ("admin", "admin"), "of the requester");
    assert_eq!(migration.reply_to, None, "nobody waits");
    assert_eq!(migration.request_id, RequestId::from_stored(answer.header("x-openstack-request-id").to_owned()));

    let mut conn = cloud.store.connection().await.unwrap();
    let server = servers::get(&mut conn, server_id(1)).await.unwrap().unwrap();
    assert_eq!((server.task_state, server.vm_state), (Some(TaskState::Migrating), VmState::Active));
    let action = actions::get(&mut conn, server_id(1), migration.request_id.as_str()).await.unwrap().unwrap();
    assert_eq!((action.id, action.action.as_str(), action.message), (migration.action, "live-migration", None));

    let incoming = inbox.recv().await.unwrap();
    let message = MigrateServer { migration: migration.id, live: true, rebuild: false, flavor: None };
    assert_eq!(to_conductor(&incoming), ToConductor::MigrateServer(message));
    let envelope = incoming.decode::<ToConductor>().unwrap();
    assert_eq!(envelope.request_id, Some(migration.request_id));
    assert_eq!(envelope.context.user_id.as_deref(), Some("admin"));
    wait_for("the message is marked as published", || async { cloud.unpublished().await == 0 }).await;
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn with_the_broker_away_it_is_accepted_and_left_for_the_sweep(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.live_migrate(server_id(1), None).await.assert_empty(202);
    cloud.life.tasks.close();
    cloud.life.stop.cancel();
    cloud.life.tasks.wait().await; // The attempt to publish is over.
    assert_eq!(cloud.unpublished().await, 1);
    let mut tx = cloud.store.begin().await.unwrap();
    let left = outbox::left_over(&mut tx, std::time::Duration::ZERO, 10).await.unwrap();
    assert_eq!(left[0].address, "conductor");
    assert_eq!(left[0].envelope["kind"], "migrate_server");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn each_range_of_versions_has_its_body(pool: PgPool) {
    let cloud = Cloud::new(pool);
    let mut table = json!({});
    // Of a server that does not exist: what passes the schema is 404.
    for version in ["2.1", "2.24", "2.25", "2.29", "2.30", "2.67", "2.68", "2.84"] {
        for body in [
            json!({"host": null, "block_migration": false, "disk_over_commit": false}),
            json!({"host": "h2", "block_migration": "True", "disk_over_commit": "no"}),
            json!({"host": null, "block_migration": "auto"}),
            json!({"host": "h2", "block_migration": "auto", "force": true}),
            json!({"host": "", "block_migration": true}),
            json!({"block_migration": true}),
            json!({"host": "h2", "block_migration": "t"}),
            json!({"host": "h2", "block_migration": 1}),
            json!({"host": "h2", "block_migration": true, "foo": 1, "bar": 2}),
            json!(null),
        ] {
            let answer = post(&cloud, version, "x", &arguments(&body)).await;
            table[version][body.to_string()] = json!(answer.refusal());
        }
    }
    golden("live_migrate_bodies", &table);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_first_check_that_fails_answers(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.server_of(2, "h1", "p1", VmState::Stopped).await;
    cloud.server_of(3, "h1", "p1", VmState::Error).await;
    cloud.server_of(4, "h1", "p1", VmState::Paused).await;
    let auto = |host: Value| arguments(&json!({"host": host, "block_migration": "auto"}));
    let id = |n| server_id(n).to_string();
    let path = |n| format!("/v2.1/servers/{}/action", server_id(n));
    let before = cloud.record().await;

    let bad_for_unknown = post(&cloud, "2.68", "nothing", &auto(json!("h h"))).await;
    assert!(bad_for_unknown.refusal().starts_with("400 badRequest: Invalid input for field/attribute host."));
    for unknown in ["nothing", "00000000-0000-0000-0000-000000000099", "00000000000000000000000000000001"] {
        let answer =
            cloud.ask_as("bob", Method::POST, "2.68", &format!("/v2.1/servers/{unknown}/action"), Some(&auto(json!(null)))).await;
        answer.assert_refusal(&format!("404 itemNotFound: Instance {unknown} could not be found."));
    }
    let invisible = cloud.ask_as("bob:p2", Method::POST, "2.68", &path(1), Some(&auto(json!(null)))).await;
    invisible.assert_refusal(&format!("404 itemNotFound: Instance {} could not be found.", id(1)));
    let member = cloud.ask_as("alice:p1", Method::POST, "2.68", &path(2), Some(&auto(json!(null)))).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-migrate-server:migrate_live to be performed.");
    let member = cloud.ask_as("alice:p1", Method::POST, "2.68", &path(2), Some(&auto(json!("h2")))).await;
    member
        .assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-migrate-server:migrate_live:host to be performed.");
    let force = arguments(&json!({"host": null, "block_migration": "auto", "force": true}));
    post(&cloud, "2.30", &id(2), &force).await.assert_refusal("400 badRequest: Can't force to a non-provided destination");
    for (n, state) in [(2, "stopped"), (3, "error")] {
        let answer = post(&cloud, "2.68", &id(n), &auto(json!("nope"))).await;
        let expected =
            format!("409 conflictingRequest: Cannot 'os-migrateLive' instance {} while it is in vm_state {state}", id(n));
        answer.assert_refusal(&expected);
    }
    for version in ["2.1", "2.30", "2.68"] {
        let body = match version {
            "2.1" => arguments(&json!({"host": "nope", "block_migration": false, "disk_over_commit": false})),
            _ => auto(json!("nope")),
        };
        let answer = post(&cloud, version, &id(1), &body).await;
        answer.assert_refusal("400 badRequest: Compute host nope could not be found.");
    }
    assert_eq!(cloud.record().await, before, "a refusal changes nothing");

    post(&cloud, "2.68", &id(4), &auto(json!(null))).await.assert_empty(202); // Paused servers move, too.
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_second_request_is_409_and_names_the_first(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.live_migrate(server_id(1), None).await.assert_empty(202);
    let first = cloud.open_migration(server_id(1)).await;
    let expected = |status: &str| {
        format!(
            "409 conflictingRequest: Cannot 'os-migrateLive' instance {} while it is in task_state migrating: migration {} is {status}",
            server_id(1),
            first.id
        )
    };
    let second = cloud.live_migrate(server_id(1), None).await;
    second.assert_refusal(&expected("accepted"));
    cloud.advance(first.id, Event::Claimed, |row| row.destination = Some(host_name("h2"))).await;
    cloud.live_migrate(server_id(1), Some("nope")).await.assert_refusal(&expected("preparing"));
    // Freed by an operator, say, while the migration is open: the index still allows one only.
    let mut conn = cloud.store.connection().await.unwrap();
    servers::release_task_state(&mut conn, server_id(1)).await.unwrap();
    drop(conn);
    let before = cloud.record().await;
    cloud.live_migrate(server_id(1), None).await.assert_refusal(&expected("preparing"));
    assert_eq!(cloud.record().await, before);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn after_a_failed_precheck_the_server_can_be_migrated_again(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.live_migrate(server_id(1), None).await.assert_empty(202);
    let first = cloud.open_migration(server_id(1)).await;
    cloud.advance(first.id, Event::Refused, |row| row.fault = Some(Fault::no_valid_host(""))).await;
    let mut conn = cloud.store.connection().await.unwrap();
    servers::release_task_state(&mut conn, server_id(1)).await.unwrap();
    drop(conn);
    cloud.live_migrate(server_id(1), None).await.assert_empty(202);
    assert_eq!(cloud.migrations().await.len(), 2);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_scheduler_is_bypassed_by_force_only_from_2_30_on(pool: PgPool) {
    let cloud = Cloud::new(pool);
    cloud.host("h1", 1).await;
    cloud.host("h2", 2).await;
    let forms = [
        ("2.30", json!({"host": "h2", "block_migration": false}), false),
        ("2.30", json!({"host": "h2", "block_migration": false, "force": false}), false),
        ("2.67", json!({"host": "h2", "block_migration": false, "force": "on"}), true),
        ("2.68", json!({"host": "h2", "block_migration": false}), false),
        ("2.1", json!({"host": "h2", "block_migration": "1", "disk_over_commit": "1"}), true),
        ("2.25", json!({"host": "h2", "block_migration": "auto"}), true),
        ("2.25", json!({"host": null, "block_migration": "auto"}), false),
    ];
    for (n, (version, body, bypassed)) in forms.into_iter().enumerate() {
        let id = cloud.server(n as u128 + 1, "h1").await;
        let (server, sent) = (id.to_string(), arguments(&body));
        // Below 2.34 the answer is waited for; the row is what matters here.
        let answer = post(&cloud, version, &server, &sent);
        let row = async {
            let mut row = None;
            for _ in 0..500 {
                let mut conn = cloud.store.connection().await.unwrap();
                row = drover_store::migrations::open_of_server(&mut conn, id).await.unwrap();
                if row.is_some() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            row.unwrap()
        };
        let migration =
            tokio::select! { row = row => row, answer = answer => { answer.assert_empty(202); cloud.open_migration(id).await } };
        assert_eq!(migration.skip_scheduler, bypassed, "{version} {body}");
        assert_eq!(migration.destination.is_some(), bypassed, "{version} {body}");
    }
}
