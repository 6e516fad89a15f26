//! How migrations end when hosts do not play along.

use drover_common::ids::MigrationId;
use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::GuestState;
use drover_common::server::{PowerState, VmState};
use sqlx::PgPool;

use crate::world::{World, host};

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_guest_moves_and_the_books_follow(pool: PgPool) {
    let world = World::new(pool).await;
    world.h2.set_guest(Some(GuestState::Running), None);
    let id = world.live_migrate().await;
    let row = world.until(id, |row| row.status.is_final()).await;
    assert_eq!((row.status, row.fault), (MigrationStatus::Completed, None));
    let server = world.server().await;
    assert_eq!((server.host, server.vm_state, server.task_state), (host("h2"), VmState::Active, None));
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
