//! An operator holds back new migrations.

use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::GuestState;
use drover_store::pause;
use sqlx::PgPool;

use crate::world::World;

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_migration_in_a_pause_is_checked_and_queued_and_goes_on_after_it(pool: PgPool) {
    let world = World::new(pool).await;
    world.h2.set_guest(Some(GuestState::Running), None);
    let mut conn = world.store.connection().await.unwrap();
    pause::begin(&mut conn, "admin", "new switches").await.unwrap();
    let id = world.live_migrate().await;
    let row = world.until(id, |row| row.status == MigrationStatus::Queued).await;
    assert_eq!(row.waiting_for.as_deref(), Some("paused by admin: new switches"));
    assert!(world.h2.traces().iter().any(|(name, _)| *name == "check_can_live_migrate_destination"), "refusals show at once");
    assert!(world.h1.traces().iter().all(|(name, _)| *name != "live_migration"));
    assert!(pause::end(&mut conn).await.unwrap());
    let row = world.until(id, |row| row.status.is_final()).await;
    assert_eq!(row.status, MigrationStatus::Completed);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn one_under_way_ends_in_a_pause(pool: PgPool) {
    let world = World::new(pool).await;
    world.h2.set_guest(Some(GuestState::Running), None);
    world.h2.ignore("post_live_migration_at_destination");
    let id = world.live_migrate().await;
    world.until(id, |row| row.status == MigrationStatus::PostMigrating).await;
    let mut conn = world.store.connection().await.unwrap();
    pause::begin(&mut conn, "admin", "").await.unwrap();
    world.h2.answer_again("post_live_migration_at_destination");
    let row = world.until(id, |row| row.status.is_final()).await;
    assert_eq!(row.status, MigrationStatus::Completed);
}
