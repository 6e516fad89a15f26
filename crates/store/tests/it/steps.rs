//! What is kept of a migration and of its action, line by line.

use std::time::Duration;

use drover_common::fault::Fault;
use drover_common::ids::Attempt;
use drover_common::migration::Decision;
use drover_store::actions::{self, EndedEvent, names};
use drover_store::migrations::steps;
use sqlx::PgPool;

use crate::fixture::{host, migration};

fn decision(elapsed_ms: i64, what: &str) -> Decision {
    Decision { elapsed_ms, what: what.to_owned(), why: format!("why {what}") }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn decisions_are_kept_in_their_order_and_once_and_only_from_the_source(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    let together = [decision(0, "policy"), decision(0, "stream"), decision(0, "no way back")];
    for decisions in [&together[..], &together[..], &[decision(900, "downtime 95 ms"), decision(0, "stream")]] {
        steps::decided(&mut conn, row.id, row.attempt, &row.source, decisions).await.unwrap();
    }
    steps::decided(&mut conn, row.id, row.attempt, &host("h9"), &[decision(1, "another host's")]).await.unwrap();
    steps::decided(&mut conn, row.id, Attempt(9), &row.source, &[decision(1, "another attempt's")]).await.unwrap();
    let kept = steps::of_migration(&mut conn, row.id).await.unwrap();
    let kept = kept.iter().filter(|step| step.kind != "phase");
    let kept: Vec<_> = kept.map(|step| (step.kind.as_str(), step.what.as_str(), step.elapsed_ms)).collect();
    let expected = [
        ("policy", "policy", Some(0)),
        ("decision", "stream", Some(0)),
        ("decision", "no way back", Some(0)),
        ("decision", "downtime 95 ms", Some(900)),
    ];
    assert_eq!(kept, expected);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_agent_that_decides_without_end_is_not_listened_to_for_ever(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    let many: Vec<_> = (0..300).map(|n| decision(n, "downtime")).collect();
    for decisions in [&many[..150], &many[150..]] {
        steps::decided(&mut conn, row.id, row.attempt, &row.source, decisions).await.unwrap();
    }
    let kept = steps::of_migration(&mut conn, row.id).await.unwrap();
    assert_eq!(kept.len(), 200, "phases among them");
    assert_eq!(kept.last().unwrap().elapsed_ms, Some(198), "the first are kept");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn ended_events_keep_their_order_length_and_fault(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    actions::record_events(&mut conn, row.action, &[]).await.unwrap();
    let event = |name, on: &str, fault| EndedEvent { name, host: host(on), lasted: Duration::from_millis(250), fault };
    let checks = [
        event(names::CHECK_DESTINATION, "h2", Some(Fault::precheck("too small"))),
        event(names::CHECK_DESTINATION, "h3", None),
        event(names::CHECK_SOURCE, "h1", None),
    ];
    actions::record_events(&mut conn, row.action, &checks).await.unwrap();
    let events = actions::events(&mut conn, row.action).await.unwrap();
    let oldest_first = events.iter().rev();
    let seen: Vec<_> =
        oldest_first.clone().map(|event| (event.host.as_deref(), event.result.as_deref(), event.details.as_deref())).collect();
    let expected = [
        (Some("h2"), Some("Error"), Some("Migration pre-check error: too small")),
        (Some("h3"), Some("Success"), None),
        (Some("h1"), Some("Success"), None),
    ];
    assert_eq!(seen, expected);
    for event in oldest_first {
        let lasted = (event.finish_time.unwrap() - event.start_time).num_milliseconds();
        assert!((249..1000).contains(&lasted), "{lasted}");
    }
}
