//! What goes from agent to agent through the conductor: read-only images before the start, probes before files are removed.

use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::{DiskSource, GuestDisk, GuestState, MigrateDisk, Sharing};
use sqlx::PgPool;

use crate::world::{IN_CIRCLES, World};

/// A local config drive and a local disk.
fn disks() -> Vec<MigrateDisk> {
    with_config_drive("sda")
}

fn with_config_drive(target: &str) -> Vec<MigrateDisk> {
    [(target, true), ("vda", false)]
        .map(|(target, carried)| {
            let disk = GuestDisk {
                target: target.to_owned(),
                source: DiskSource::File { path: format!("/d/{target}") },
                read_only: carried,
                shareable: false,
                format: "raw".to_owned(),
                capacity_bytes: 4097,
                allocation_bytes: 4097,
                backing_file: None,
                resolves_to: None,
                chain: Vec::new(),
                not_copyable: None,
                file: None,
            };
            MigrateDisk { disk, sharing: Sharing::NotShared, copied: !carried, carried, below: None, why: String::new() }
        })
        .to_vec()
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_config_drive_is_carried_before_the_start_and_files_are_removed_after_a_fresh_probe(pool: PgPool) {
    let world = World::new(pool).await;
    world.h1.set_disks(disks());
    world.h2.set_guest(Some(GuestState::Running), None);
    let id = world.live_migrate().await;
    let row = world.until(id, |row| row.status.is_final()).await;
    assert_eq!((row.status, row.fault), (MigrationStatus::Completed, None));
    assert_eq!(world.h1.heard(), ["read sda 0", "read sda 4096", "clean up, Some(1)"]);
    assert_eq!(world.h2.heard()[..2], ["write sda [1 bytes at 0]", "probe"]);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_guest_without_local_files_costs_no_question_more(pool: PgPool) {
    let world = World::new(pool).await;
    world.h2.set_guest(Some(GuestState::Running), None);
    let id = world.live_migrate().await;
    world.until(id, |row| row.status.is_final()).await;
    assert_eq!((world.h1.heard(), world.h2.heard()), (vec!["clean up, None".to_owned()], vec![]));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_image_that_cannot_be_carried_takes_the_migration_back_before_it_starts(pool: PgPool) {
    let world = World::new(pool).await;
    world.h1.set_disks(disks());
    world.h2.ignore("write_image");
    let id = world.live_migrate().await;
    let row = world.until(id, |row| row.status.is_final() || row.retries > 0).await;
    assert_ne!(row.status, MigrationStatus::Completed);
    assert!(world.h1.heard().iter().all(|heard| heard.starts_with("read")), "nothing was cleaned up: {:?}", world.h1.heard());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_image_that_is_given_out_in_circles_is_not_taken_for_whole(pool: PgPool) {
    let world = World::new(pool).await;
    world.h1.set_disks(with_config_drive(IN_CIRCLES));
    let id = world.live_migrate().await;
    let row = world.until(id, |row| row.status.is_final() || row.retries > 0).await;
    assert_ne!(row.status, MigrationStatus::Completed);
    assert!(world.h1.traces().iter().all(|(name, _)| *name != "live_migration"), "nothing was started");
}
