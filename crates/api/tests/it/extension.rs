//! `/drover/v1`.

use drover_common::fault::Fault;
use drover_common::migration::{Event, JobResult, Progress};
use drover_store::findings::{self, FindingKind};
use drover_store::migrations::{self, Refusal};
use http::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::fixture::{Cloud, golden, host_name, server_id};

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn everything_known_of_a_migration_is_told(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.live_migrate(server_id(1), Some("h2")).await.assert_empty(202);
    let migration = cloud.open_migration(server_id(1)).await;
    let path = format!("/drover/v1/migrations/{}", migration.id);
    let accepted = cloud.get("2.1", &path).await;
    assert_eq!(accepted.header("openstack-api-version"), "-", "no microversions here");
    cloud
        .advance(migration.id, Event::Claimed, |row| {
            row.destination = Some(host_name("h2"));
            row.refusals = vec![Refusal { host: host_name("h3"), fault: Fault::precheck("no room") }];
        })
        .await;
    cloud.advance(migration.id, Event::StartGranted, |_| {}).await;
    let now = cloud.open_migration(server_id(1)).await;
    let progress = Progress { elapsed_ms: 1200, memory_total: 100, iteration: 2, ..Progress::default() };
    let mut conn = cloud.store.connection().await.unwrap();
    let second = std::time::Duration::from_secs(1);
    assert!(migrations::record_progress(&mut conn, now.id, now.attempt, &now.source, &progress, second).await.unwrap().is_some());
    drop(conn);
    cloud.advance(migration.id, Event::RollBack, |row| row.waiting_for = Some("h2 to clean up".to_owned())).await;
    cloud
        .advance(migration.id, Event::RolledBackFailed, |row| {
            row.fault = Some(Fault::migration_error("QEMU died"));
            row.job_result = Some(JobResult { total_ms: Some(2000), downtime_ms: Some(45), ..JobResult::default() });
        })
        .await;
    golden("extension_migration", &json!({"accepted": accepted.json(), "failed": cloud.get("2.1", &path).await.json()}));
    for unknown in ["999", "x", "99999999999999999999"] {
        let answer = cloud.get("2.1", &format!("/drover/v1/migrations/{unknown}")).await;
        answer.assert_refusal(&format!("404 itemNotFound: Migration {unknown} could not be found."));
    }
    let member = cloud.ask_as("alice:p1", Method::GET, "2.1", &path, None).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow drover:migrations:show to be performed.");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn findings_are_told_to_admins(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let path = "/drover/v1/findings";
    assert_eq!(cloud.get("2.1", path).await.json(), json!({"findings": []}));
    let mut conn = cloud.store.connection().await.unwrap();
    findings::raise(&mut conn, FindingKind::OwnershipConflict, server_id(1), &host_name("h2"), "two run").await.unwrap();
    drop(conn);
    golden("extension_findings", &cloud.get("2.1", path).await.json());
    let member = cloud.ask_as("alice:p1", Method::GET, "2.1", path, None).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow drover:findings:index to be performed.");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_operator_chooses_only_where_two_copies_were_found(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let path = format!("/drover/v1/servers/{}/keep", server_id(1));
    let keep = async |host: &str| cloud.ask_as("admin", Method::POST, "2.1", &path, Some(&json!({"host": host}))).await;
    let nothing = format!(
        "409 conflictingRequest: Instance {} has no migration in an ownership conflict: there is nothing to choose (see \
         /drover/v1/findings).",
        server_id(1)
    );
    keep("h1").await.assert_refusal(&nothing);
    cloud.live_migrate(server_id(1), Some("h2")).await.assert_empty(202);
    let migration = cloud.open_migration(server_id(1)).await;
    cloud.advance(migration.id, Event::Claimed, |row| row.destination = Some(host_name("h2"))).await;
    cloud.advance(migration.id, Event::StartGranted, |_| {}).await;
    keep("h1").await.assert_refusal(&nothing);
    let mut conn = cloud.store.connection().await.unwrap();
    findings::raise(&mut conn, FindingKind::OwnershipConflict, server_id(1), &host_name("h2"), "two run").await.unwrap();
    drop(conn);
    let third = format!("400 badRequest: Host h3 takes no part in migration {}: choose h1 or h2.", migration.id);
    keep("h3").await.assert_refusal(&third);
    let member = cloud.ask_as("alice:p1", Method::POST, "2.1", &path, Some(&json!({"host": "h1"}))).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow drover:servers:keep to be performed.");
    keep("h2").await.assert_empty(202);
    assert_eq!(cloud.open_migration(server_id(1)).await.keep, Some(host_name("h2")));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_queue_is_told_in_its_order_and_a_priority_changes_it(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.server(2, "h1").await;
    cloud.server(3, "h2").await;
    let mut ids = Vec::new();
    for n in 1..=3 {
        cloud.live_migrate(server_id(n), None).await.assert_empty(202);
        let id = cloud.open_migration(server_id(n)).await.id;
        cloud
            .advance(id, Event::NoSlot, |row| {
                row.waiting_for = Some("outgoing slots of h1: 1 of 1 in use".to_owned());
                row.slot_hosts = (n == 2).then(|| vec![host_name("h2")]);
            })
            .await;
        ids.push(id);
    }
    let before = cloud.get("2.1", "/drover/v1/queue").await.json();
    let path = format!("/drover/v1/migrations/{}", ids[1]);
    let set = async |token: &str, body: serde_json::Value| cloud.ask_as(token, Method::PUT, "2.1", &path, Some(&body)).await;
    let answer = set("admin", json!({"priority": 7})).await.json();
    let place =
        json!({"position": 1, "position_at_source": 1, "hosts": ["h2"], "queued_at": answer["migration"]["queue"]["queued_at"]});
    assert_eq!((&answer["migration"]["priority"], &answer["migration"]["queue"]), (&json!(7), &place));
    let after = cloud.get("2.1", "/drover/v1/queue").await.json();
    golden("extension_queue", &json!({"before": before, "after": after}));
    for (body, why) in [
        (json!({"priority": 1001}), "1001 is greater than the maximum of 1000"),
        (json!({"priority": "high"}), "'high' is not of type 'integer'"),
        (json!({}), "'priority' is a required property"),
    ] {
        let refused = set("admin", body).await;
        assert_eq!(refused.status, 400);
        assert!(refused.json().to_string().contains(why), "{}", refused.json());
    }
    set("alice:p1", json!({"priority": 7}))
        .await
        .assert_refusal("403 forbidden: Policy doesn't allow drover:migrations:update to be performed.");
    let member = cloud.ask_as("alice:p1", Method::GET, "2.1", "/drover/v1/queue", None).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow drover:queue:index to be performed.");
    cloud.advance(ids[1], Event::Aborted, |_| {}).await;
    let over = format!("409 conflictingRequest: Migration {} is cancelled: its priority does not matter any more.", ids[1]);
    set("admin", json!({"priority": 7})).await.assert_refusal(&over);
}
