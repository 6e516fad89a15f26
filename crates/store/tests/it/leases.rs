use std::time::Duration;

use drover_common::ids::Incarnation;
use drover_common::migration::Event;
use drover_store::migrations::{advance, lease};
use futures::future::join_all;
use sqlx::PgPool;

use crate::fixture::migration;

const LATER: Duration = Duration::from_mins(1);

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn of_racing_conductors_exactly_one_drives(pool: PgPool) {
    let row = migration(&mut pool.acquire().await.unwrap()).await;
    let race = (0..10).map(|_| {
        let pool = pool.clone();
        async move { lease::take(&mut pool.acquire().await.unwrap(), row.id, Incarnation::random()).await.unwrap() }
    });
    assert_eq!(join_all(race).await.into_iter().flatten().count(), 1);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_event_that_came_while_another_drove_is_not_missed(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let (me, other) = (Incarnation::random(), Incarnation::random());
    let row = migration(&mut conn).await;
    let mine = lease::take(&mut conn, row.id, me).await.unwrap().unwrap();
    assert!(lease::take(&mut conn, row.id, other).await.unwrap().is_none(), "driven already");
    assert!(!lease::release(&mut conn, row.id, me, mine.wanted, LATER, None).await.unwrap(), "the event must be looked at first");
    let again = lease::renew(&mut conn, row.id, me).await.unwrap().unwrap();
    assert!(lease::release(&mut conn, row.id, me, again.wanted, LATER, None).await.unwrap());
    assert!(lease::take(&mut conn, row.id, other).await.unwrap().is_some());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_dead_conductors_lease_runs_out_and_it_cannot_go_on(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let (dead, next) = (Incarnation::random(), Incarnation::random());
    let row = migration(&mut conn).await;
    let seen = lease::take(&mut conn, row.id, dead).await.unwrap().unwrap();
    sqlx::raw_sql("UPDATE migrations SET lease_until = now() - interval '1 second', deadline = now() - interval '1 second'")
        .execute(&mut *conn)
        .await
        .unwrap();
    assert_eq!(lease::due(&mut conn, 10).await.unwrap(), [row.id]);
    assert!(lease::take(&mut conn, row.id, next).await.unwrap().is_some());
    assert!(lease::renew(&mut conn, row.id, dead).await.unwrap().is_none());
    assert!(lease::release(&mut conn, row.id, dead, seen.wanted, LATER, None).await.unwrap(), "nothing to release any more");
    assert!(lease::due(&mut conn, 10).await.unwrap().is_empty(), "it is driven again");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_closed_migration_is_neither_due_nor_taken(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    advance(&mut conn, &row, Event::Refused, |_| ()).await.unwrap().unwrap();
    assert!(lease::take(&mut conn, row.id, Incarnation::random()).await.unwrap().is_none());
    assert!(lease::due(&mut conn, 10).await.unwrap().is_empty());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_drive_that_has_no_place_leaves_the_row_to_the_sweep_and_its_event_counts(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    let me = Incarnation::random();
    let driven = lease::take(&mut conn, row.id, me).await.unwrap().unwrap();
    lease::note(&mut conn, row.id).await.unwrap();
    assert!(!lease::release(&mut conn, row.id, me, driven.wanted, LATER, None).await.unwrap(), "the event must be looked at first");
    let again = lease::renew(&mut conn, row.id, me).await.unwrap().unwrap();
    assert!(lease::release(&mut conn, row.id, me, again.wanted, LATER, None).await.unwrap());
    assert!(lease::due(&mut conn, 10).await.unwrap().is_empty());
    lease::note(&mut conn, row.id).await.unwrap();
    assert_eq!(lease::due(&mut conn, 10).await.unwrap(), [row.id]);
}
