//! The fleet in numbers, and pauses.

use std::time::Duration;

use drover_common::migration::Event;
use drover_store::claims::{self, Claim, Claimed, Limits, NoSlot};
use drover_store::findings::{self, FindingKind};
use drover_store::migrations::advance;
use drover_store::{Store, fleet, line, pause};
use sqlx::PgPool;

use crate::fixture::{add_host, host, migration};

const NO_LIMITS: Limits =
    Limits { outgoing: 0, incoming: 0, fleet: 0, ram_allocation_ratio: 1.0, cpu_allocation_ratio: 1.0, reserved_host_memory_mb: 0 };

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn in_a_pause_nobody_gets_a_slot_and_nobody_leaves_the_queue(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    for name in ["h1", "h2"] {
        add_host(&mut conn, name).await;
    }
    let (row, (h1, h2)) = (migration(&mut conn).await, (host("h1"), host("h2")));
    let claim =
        Claim { migration: row.id, server: row.server, source: &h1, destination: &h2, vcpus: 1, memory_mb: 1024, disk_gb: 1 };
    pause::begin(&mut conn, "admin", "new switches").await.unwrap();
    let why = "paused by admin: new switches".to_owned();
    assert_eq!(claims::take(&mut conn, claim, NO_LIMITS).await.unwrap(), Claimed::NoSlot(NoSlot { why, at_destination: false }));
    let queued = advance(&mut conn, &row, Event::NoSlot, |_| ()).await.unwrap().unwrap();
    assert_eq!(line::whose_turn(&mut conn, &NO_LIMITS).await.unwrap(), []);
    assert!(pause::end(&mut conn).await.unwrap());
    assert!(!pause::end(&mut conn).await.unwrap(), "there is none any more");
    assert_eq!(line::whose_turn(&mut conn, &NO_LIMITS).await.unwrap(), [queued.id]);
    assert_eq!(claims::take(&mut conn, claim, NO_LIMITS).await.unwrap(), Claimed::Yes { share_mib: None });
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn what_is_open_is_counted(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    for name in ["h1", "h2"] {
        add_host(&mut conn, name).await;
    }
    let (first, second) = (migration(&mut conn).await, migration(&mut conn).await);
    let wait = |why: &'static str| move |row: &mut drover_store::migrations::Migration| row.waiting_for = Some(why.to_owned());
    advance(&mut conn, &first, Event::NoSlot, wait("slots of the fleet: 1 of 1 in use")).await.unwrap().unwrap();
    advance(&mut conn, &second, Event::Refused, |_| ()).await.unwrap().unwrap();
    migration(&mut conn).await;
    findings::raise(&mut conn, FindingKind::Leftover, first.server, &host("h2"), "an old copy").await.unwrap();
    pause::begin(&mut conn, "admin", "").await.unwrap();
    let fleet = fleet::read(&mut conn, Duration::from_mins(1)).await.unwrap();
    assert_eq!(fleet.open, [("accepted".to_owned(), 1), ("queued".to_owned(), 1)]);
    assert_eq!(fleet.queued, [("slots of the fleet: 1 of 1 in use".to_owned(), 1)]);
    assert_eq!(fleet.findings, [("leftover".to_owned(), 1)]);
    let counts = &fleet.counts;
    assert_eq!((counts.hosts_up + counts.hosts_down, counts.fleet, counts.debts, counts.outbox), (2, 0, 0, 0));
    assert!(counts.paused && fleet.queue_oldest >= 0.0);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_schema_that_is_complete_lacks_nothing_and_one_that_is_not_says_what(pool: PgPool) {
    let store = Store::from_pool(pool.clone());
    assert!(store.steps_missing().await.unwrap().is_empty());
    sqlx::raw_sql("DELETE FROM _sqlx_migrations WHERE version = 20261124000100").execute(&pool).await.unwrap();
    assert_eq!(store.steps_missing().await.unwrap(), ["20261124000100 pause and trace"]);
}
