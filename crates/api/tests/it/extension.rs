//! `/drover/v1`.

use chrono::DateTime;
use drover_common::doctor::Facts;
use drover_common::fault::Fault;
use drover_common::migration::{Event, JobResult, Progress};
use drover_common::rpc::latest::{Diagnosed, FleetDiagnosis, ToConductor};
use drover_store::findings::{self, FindingKind};
use drover_store::migrations::{self, Refusal};
use http::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::fixture::{Cloud, golden, host_name, server_id, to_conductor};

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
            row.announced_after_ms = Some(3);
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

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_operator_holds_back_new_migrations_and_lets_them_go_on(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let path = "/drover/v1/pause";
    let put = async |body| cloud.ask(Method::PUT, "2.1", path, Some(&body)).await;
    assert_eq!(cloud.get("2.1", path).await.json(), json!({"pause": null}));
    cloud
        .ask(Method::DELETE, "2.1", path, None)
        .await
        .assert_refusal("404 itemNotFound: New migrations are not held back: there is no pause to end.");
    let begun = put(json!({"pause": {"reason": "new switches"}})).await.json();
    assert_eq!((&begun["pause"]["reason"], &begun["pause"]["paused_by"]), (&json!("new switches"), &json!("admin")));
    let again = put(json!({"pause": {"reason": "and new cables"}})).await.json();
    assert_eq!((&again["pause"]["since"], &again["pause"]["reason"]), (&begun["pause"]["since"], &json!("and new cables")));
    cloud.live_migrate(server_id(1), Some("h2")).await.assert_empty(202);
    assert_eq!(put(json!({"pause": {}})).await.status, 400);
    cloud.ask(Method::DELETE, "2.1", path, None).await.assert_empty(204);
    assert_eq!(cloud.get("2.1", path).await.json(), json!({"pause": null}));
    for method in [Method::GET, Method::DELETE] {
        let member = cloud.ask_as("alice:p1", method, "2.1", path, None).await;
        member.assert_refusal("403 forbidden: Policy doesn't allow drover:pause to be performed.");
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_doctor_is_told_what_database_and_agents_know(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let path = "/drover/v1/doctor";
    let ask = async || -> Facts { serde_json::from_value(cloud.get("2.1", path).await.json()["doctor"].take()).unwrap() };
    let alone = ask().await;
    assert_eq!(alone.conductor.problem.as_deref(), Some("nobody listens at conductor"));
    assert!(alone.database.steps_missing.is_empty() && alone.pause.is_none());
    let hosts: Vec<(&str, bool, i32)> = alone.hosts.iter().map(|h| (h.host.as_str(), h.up, h.libvirt_version)).collect();
    assert_eq!(hosts, [("h1", true, 9_000_000), ("h2", true, 9_000_000)]);

    let (bus, mut inbox) = cloud.conductor();
    tokio::spawn(async move {
        while let Some(incoming) = inbox.recv().await {
            assert_eq!(to_conductor(&incoming), ToConductor::Diagnose);
            let problem = Some("its agent did not answer".to_owned());
            let hosts = vec![Diagnosed { host: host_name("h2"), clock_ahead_ms: Some(7), diagnosis: None, problem }];
            let fleet = FleetDiagnosis { release: "0.1.0".to_owned(), clock: DateTime::UNIX_EPOCH, hosts };
            bus.reply(incoming.reply_to().as_ref(), Ok(fleet)).await;
        }
    });
    let told = ask().await;
    assert!(told.conductor.problem.is_none() && told.conductor.clock_ahead_ms.unwrap() < -1_000_000, "{:?}", told.conductor);
    let h2 = &told.hosts[1];
    assert_eq!((h2.clock_ahead_ms, h2.problem.as_deref()), (Some(7), Some("its agent did not answer")));
    let member = cloud.ask_as("alice:p1", Method::GET, "2.1", path, None).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow drover:doctor to be performed.");
}
