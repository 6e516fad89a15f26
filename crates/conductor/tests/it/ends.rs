//! How migrations end when hosts do not play along.

use std::time::Duration;

use drover_common::ids::MigrationId;
use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::GuestState;
use drover_common::server::{PowerState, VmState};
use drover_store::migrations::steps;
use sqlx::PgPool;

use crate::world::{World, host};

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_guest_moves_and_the_books_follow(pool: PgPool) {
    let world = World::new(pool).await;
    world.h2.set_guest(Some(GuestState::Running), None);
    let id = world.live_migrate().await;
    let row = world.until(id, |row| row.status.is_final()).await;
    assert_eq!((row.status, &row.fault, row.network_blackout()), (MigrationStatus::Completed, &None, None), "nobody announced it");
    let server = world.server().await;
    assert_eq!((server.host, server.vm_state, server.task_state), (host("h2"), VmState::Active, None));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn what_the_network_missed_of_the_guest_is_its_downtime_and_the_time_to_its_announcement(pool: PgPool) {
    let world = World::new(pool).await;
    world.h2.set_guest(Some(GuestState::Running), None);
    world.h2.announces_after(2);
    let id = world.live_migrate().await;
    let row = world.until(id, |row| row.status.is_final()).await;
    let blackout = row.network_blackout().unwrap();
    assert_eq!((blackout.downtime_ms, blackout.announced_after_ms, blackout.total_ms()), (30, 2, 32));
}

/// The guest is on h2, which goes away before it has taken over.
async fn switched_off_after_the_switch_over(world: &World) -> MigrationId {
    world.h2.set_guest(Some(GuestState::Running), None);
    world.h2.ignore("post_live_migration_at_destination");
    let id = world.live_migrate().await;
    world.until(id, |row| row.status == MigrationStatus::PostMigrating && row.waiting_for.is_some()).await;
    world.switch_off(&world.h2);
    id
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_destination_that_is_fenced_after_the_switch_over_completes_it_with_the_guest_off(pool: PgPool) {
    let world = World::new(pool).await;
    let id = switched_off_after_the_switch_over(&world).await;
    world.force_down(&world.h2).await;
    let row = world.until(id, |row| row.status.is_final()).await;
    assert_eq!(row.status, MigrationStatus::Completed);
    let server = world.server().await;
    assert_eq!((server.host, server.power_state, server.task_state), (host("h2"), PowerState::Shutdown, None));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_destination_that_is_only_silent_after_the_switch_over_is_waited_for(pool: PgPool) {
    let world = World::new(pool).await;
    let id = switched_off_after_the_switch_over(&world).await;
    let row = world.until(id, |row| row.waiting_for.as_ref().is_some_and(|why| why.contains("no connection"))).await;
    assert_eq!(row.status, MigrationStatus::PostMigrating);
    assert_eq!(world.server().await.host, host("h1"), "the books are not written before the destination has taken over");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_abort_that_comes_too_late_is_told_where_the_guest_already_is(pool: PgPool) {
    let world = World::new(pool).await;
    world.h2.set_guest(Some(GuestState::Running), None);
    world.h1.stay_in_call();
    let id = world.live_migrate().await;
    world.until(id, |row| row.status == MigrationStatus::Running).await;
    world.abort(id).await;
    world.until(id, |row| row.waiting_for.as_ref().is_some_and(|why| why.contains("an abort was asked for"))).await;
    world.h1.return_from_call();
    let row = world.until(id, |row| row.status.is_final()).await;
    assert_eq!((row.status, row.fault), (MigrationStatus::Completed, None));
    let mut conn = world.store.connection().await.unwrap();
    let told = steps::of_migration(&mut conn, id).await.unwrap();
    let told: Vec<_> = told.iter().filter(|step| step.what == "abort").map(|step| step.why.as_deref()).collect();
    assert_eq!(told, [Some("too late: already completed on h2")]);
    assert_eq!(world.server().await.host, host("h2"));
}

/// Its agent has a minute to answer; who aborts does not wait so long.
#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_abort_does_not_wait_for_a_host_that_does_not_answer(pool: PgPool) {
    let hung = ["describe_guest", "check_can_live_migrate_destination", "check_can_live_migrate_source", "pre_live_migration"];
    let world = World::with_options(pool, "rpc_response_timeout = 60").await;
    for message in hung {
        for agent in [&world.h1, &world.h2] {
            agent.ignore(message);
        }
        let id = world.live_migrate().await;
        let heard = async {
            while !world.h1.was_asked(message) && !world.h2.was_asked(message) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), heard).await.expect(message);
        let asked = tokio::time::Instant::now();
        world.abort(id).await;
        let row = world.until(id, |row| row.status.is_final()).await;
        assert!(asked.elapsed() < Duration::from_secs(5), "{message}: {:?}", asked.elapsed());
        assert_eq!(row.status, MigrationStatus::Cancelled, "{message}: {row:#?}");
        assert_eq!(world.server().await.task_state, None);
        for agent in [&world.h1, &world.h2] {
            agent.answer_again(message);
        }
    }
}
