//! Reports of hosts around a migration.

use std::time::Duration;

use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::{DomainsReport, GuestState, HostUp, HostWelcome, ToConductor};
use drover_store::{findings, migrations};
use sqlx::PgPool;

use crate::world::{World, domain, host, inventory};

async fn moved(world: &World) {
    world.h2.set_guest(Some(GuestState::Running), None);
    let id = world.live_migrate().await;
    world.until(id, |row| row.status == MigrationStatus::Completed).await;
}

/// Waits until the conductor has taken in everything that was sent before: a leftover about another guest shows it.
async fn taken_in(world: &World, sequence: i64) {
    let other = drover_common::ids::ServerId(uuid::Uuid::from_u128(99));
    let report = vec![domain(world.server, GuestState::Running), domain(other, GuestState::Running)];
    world.h2.report(sequence, report, Vec::new()).await;
    let known = async {
        loop {
            let mut conn = world.store.connection().await.unwrap();
            if drover_store::servers::get(&mut conn, other).await.unwrap().is_some() {
                return;
            }
            drop(conn);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), known).await.expect("the report is taken in");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_report_from_before_the_take_over_does_not_take_the_guest_away_again(pool: PgPool) {
    let world = World::new(pool).await;
    moved(&world).await; // The take-over's report has number 7.
    world.h2.report(6, Vec::new(), Vec::new()).await;
    taken_in(&world, 8).await;
    let server = world.server().await;
    assert_eq!((server.host, server.deleted_at), (host("h2"), None));
    world.h2.report(9, Vec::new(), Vec::new()).await;
    let gone = async {
        while world.server().await.deleted_at.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("a newer report does");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_domain_that_cannot_be_read_is_there_all_the_same(pool: PgPool) {
    let world = World::new(pool).await;
    moved(&world).await;
    world.h2.report(8, Vec::new(), vec![world.server]).await;
    taken_in(&world, 9).await;
    assert_eq!(world.server().await.deleted_at, None);
    let mut conn = world.store.connection().await.unwrap();
    assert!(findings::open(&mut conn).await.unwrap().is_empty());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_agent_that_comes_back_is_told_what_to_watch_and_what_is_wished(pool: PgPool) {
    let world = World::new(pool).await;
    world.h1.stay_in_call();
    let id = world.live_migrate().await;
    let row = world.until(id, |row| row.status == MigrationStatus::Running).await;
    let mut conn = world.store.connection().await.unwrap();
    assert!(migrations::request_abort(&mut conn, id, "admin").await.unwrap());
    let known = drover_store::hosts::hypervisors(&mut conn, Duration::from_mins(1)).await.unwrap();
    let h1 = known.iter().find(|h| h.state.host == host("h1")).unwrap();
    drop(conn);
    let inventory = inventory("h1", h1.uuid);
    let incarnation = drover_common::ids::Incarnation::random();
    let domains = vec![domain(world.server, GuestState::Running)];
    let report = DomainsReport { incarnation, sequence: 1, complete: true, domains, gone: Vec::new(), unreadable: Vec::new() };
    let welcome: HostWelcome = world.h1.ask(ToConductor::HostUp(HostUp { incarnation, inventory, domains: report })).await;
    let [watch] = welcome.watch[..] else { panic!("{welcome:?}") };
    assert_eq!((watch.of.migration, watch.of.attempt, watch.abort_requested), (id, row.attempt, true));
    assert!(!watch.force_complete_requested);
}
