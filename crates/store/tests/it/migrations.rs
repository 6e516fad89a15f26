use std::time::Duration;

use drover_common::fault::Fault;
use drover_common::migration::{Event, MigrationStatus, Progress};
use drover_store::StoreError;
use drover_store::migrations::{self, Ending, Refusal, advance, amend, lease};
use futures::future::join_all;
use sqlx::PgPool;

use crate::fixture::{host, migration};

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn of_racing_edges_from_one_version_exactly_one_is_written(pool: PgPool) {
    let row = migration(&mut pool.acquire().await.unwrap()).await;
    let race = (0..10).map(|i| {
        let (pool, row) = (pool.clone(), row.clone());
        async move {
            let mut conn = pool.acquire().await.unwrap();
            let event = if i % 2 == 0 { Event::Refused } else { Event::NoSlot };
            advance(&mut conn, &row, event, |_| ()).await.unwrap()
        }
    });
    let written: Vec<_> = join_all(race).await.into_iter().flatten().collect();
    assert_eq!(written.len(), 1);
    assert_eq!(written[0].revision.0, row.revision.0 + 1);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_illegal_edge_is_an_error_and_changes_nothing(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    let refused = advance(&mut conn, &row, Event::Finished, |_| ()).await.unwrap_err();
    assert!(matches!(refused, StoreError::IllegalEdge { from: MigrationStatus::Accepted, .. }), "{refused}");
    assert_eq!(migrations::get(&mut conn, row.id).await.unwrap().unwrap().revision, row.revision);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn everything_that_a_change_sets_is_read_back(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    let written = advance(&mut conn, &row, Event::Claimed, |after| {
        after.attempt.0 = 1;
        after.destination = Some(host("h2"));
        after.dest_node = Some("n2".to_owned());
        after.source_node = Some("n1".to_owned());
    });
    let claimed = written.await.unwrap().unwrap();
    assert_eq!(claimed.status, MigrationStatus::Preparing);
    assert!(claimed.claimed_at.is_some());
    let written = amend(&mut conn, &claimed, |after| {
        after.pre_done = true;
        after.casts = 2;
        after.retries = 1;
        after.ending = Some(Ending::Retry);
        after.fault = Some(Fault::precheck("no"));
        after.refusals = vec![Refusal { host: host("h3"), fault: Fault::invalid_cpu_info("old") }];
        after.waiting_for = Some("it".to_owned());
    });
    let amended = written.await.unwrap().unwrap();
    let read = migrations::get(&mut conn, row.id).await.unwrap().unwrap();
    assert_eq!(read.revision, amended.revision);
    assert_eq!((read.pre_done, read.casts, read.retries, read.ending), (true, 2, 1, Some(Ending::Retry)));
    assert_eq!((read.fault, read.waiting_for.as_deref()), (Some(Fault::precheck("no")), Some("it")));
    assert_eq!(read.refusals, [Refusal { host: host("h3"), fault: Fault::invalid_cpu_info("old") }]);
    assert_eq!((read.destination, read.attempt.0), (Some(host("h2")), 1));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_first_who_asks_for_an_abort_is_remembered_and_a_closed_migration_cannot_be_aborted(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    assert!(migrations::request_abort(&mut conn, row.id, "first").await.unwrap());
    assert!(migrations::request_abort(&mut conn, row.id, "second").await.unwrap());
    let row = migrations::get(&mut conn, row.id).await.unwrap().unwrap();
    assert_eq!(row.abort_requested_by.as_deref(), Some("first"));
    advance(&mut conn, &row, Event::Aborted, |_| ()).await.unwrap().unwrap();
    assert!(!migrations::request_abort(&mut conn, row.id, "third").await.unwrap());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_status_that_this_release_does_not_know_is_an_error_that_names_table_and_row(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    let spoil = "ALTER TABLE migrations DROP CONSTRAINT migrations_ending_check";
    sqlx::raw_sql(spoil).execute(&mut *conn).await.unwrap();
    sqlx::raw_sql("UPDATE migrations SET ending = 'sideways'").execute(&mut *conn).await.unwrap();
    let error = migrations::get(&mut conn, row.id).await.unwrap_err();
    let text = drover_common::telemetry::chain(&error);
    assert_eq!(text, format!("database: migrations row {} holds nonsense: \"sideways\" is no ending", row.id));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_sample_puts_off_the_next_look_but_not_while_somebody_waits_for_an_abort(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    let running = claimed_and_started(&mut conn, &row).await;
    let overdue = "UPDATE migrations SET deadline = now() - interval '1 second'";
    let sample = Progress { memory_total: 1, ..Progress::default() };
    let record = async |conn: &mut sqlx::PgConnection| {
        let minute = Duration::from_mins(1);
        migrations::record_progress(conn, row.id, running.attempt, &running.source, &sample, minute).await.unwrap()
    };
    sqlx::raw_sql(overdue).execute(&mut *conn).await.unwrap();
    assert_eq!(record(&mut conn).await, Some(row.server));
    assert!(lease::due(&mut conn, 10).await.unwrap().is_empty());
    sqlx::raw_sql(overdue).execute(&mut *conn).await.unwrap();
    assert!(migrations::request_abort(&mut conn, row.id, "admin").await.unwrap());
    record(&mut conn).await;
    assert_eq!(lease::due(&mut conn, 10).await.unwrap(), [row.id]);
}

async fn claimed_and_started(conn: &mut sqlx::PgConnection, row: &migrations::Migration) -> migrations::Migration {
    let claimed = advance(conn, row, Event::Claimed, |after| after.destination = Some(host("h2"))).await.unwrap().unwrap();
    advance(conn, &claimed, Event::StartGranted, |_| ()).await.unwrap().unwrap()
}
