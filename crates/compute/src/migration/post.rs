//! The source's clean-up after the guest has left for good.
//!
//! libvirt does most of it by itself; what is left here is what a lost word between the two libvirts leaves: a definition, a copy
//! that stands still, and the files of disks that were moved. A guest that *runs* here is never touched.
//!
//! A file is removed only if it is the one that the guest had, no process has it open, and nothing that the destination has just
//! written beside its own is to be seen here: what was local at the start might be shared by now.

use std::path::PathBuf;

use drover_common::fault::Fault;
use drover_common::rpc::latest::{CleanUp, DiskSource, GrantKind, GuestState};
use tracing::info;

use crate::context::Context;
use crate::driver::{Action, DriverError, if_there};
use crate::facts::{self, SeenGuest};
use crate::flags::MigrationFlags;
use crate::grants::{self, NotGranted};
use crate::storage::disks::{self, Doomed};
use crate::storage::{moved_directories, probe};

/// Answers `post_live_migration`. Leave can take long and so can libvirt, so before each deed it is looked again what is left.
pub async fn post_live_migration(ctx: &Context, order: &CleanUp) -> Result<(), Fault> {
    let server = order.server;
    let failed = |error: DriverError| error.into_fault(&ctx.options.host, server, Fault::migration_error);
    ctx.ledger.forget_stop(server); // The guest runs elsewhere.
    if look(ctx, order).await? == Left::default() {
        return Ok(());
    }
    let granted = grants::ask_by(ctx, order.migration, order.authority, GrantKind::CleanSource).await;
    granted.map_err(NotGranted::into_fault)?;
    if look(ctx, order).await?.copy {
        info!(migration.id = %order.migration, server.id = %server, "destroying the copy that the migration left here");
        if_there(ctx.driver.act(server, Action::Destroy).await).map_err(failed)?;
    }
    if look(ctx, order).await?.definition {
        if_there(ctx.driver.act(server, Action::Undefine).await).map_err(failed)?;
    }
    let files = look(ctx, order).await?.files;
    if !files.is_empty() {
        is_not_shared(order).await?;
    }
    disks::remove_all_unused(files).await
}

/// Looks for what the destination has just written beside its disks. A conductor before 1.3 has not asked it to.
async fn is_not_shared(order: &CleanUp) -> Result<(), Fault> {
    let Some(probes) = order.probes.clone() else { return Ok(()) };
    let directories = moved_directories(&order.data);
    let host = order.data.destination.host.clone();
    let looking = tokio::task::spawn_blocking(move || {
        directories.iter().try_for_each(|directory| {
            let refuse = |why: String| Err(format!("files in {directory} are not removed: {why}"));
            match probes.iter().find(|probe| probe.directory == *directory).map(probe::sees) {
                Some(Ok(false)) => Ok(()),
                Some(Ok(true)) => refuse(format!("what {host} writes there is seen here, so both hosts share them")),
                Some(Err(why)) => refuse(format!("it cannot be told whether {host} shares them: {why}")),
                None => refuse(format!("{host} has written nothing there to be looked for")),
            }
        })
    });
    looking.await.map_err(Fault::unexpected)?.map_err(Fault::migration_error)
}

/// What the migration left here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    /// A QEMU that stands still.
    copy: bool,
    /// A definition.
    definition: bool,
    /// Files of moved disks.
    files: Vec<Doomed>,
}

/// Looks what is left; a fault if the guest itself is here.
async fn look(ctx: &Context, order: &CleanUp) -> Result<Left, Fault> {
    let failed = |error: DriverError| error.into_fault(&ctx.options.host, order.server, Fault::migration_error);
    let (seen, files) = tokio::join!(facts::see(ctx, order.server), moved_files(order));
    let Some(seen) = seen.map_err(failed)? else {
        return Ok(Left { files, ..Left::default() });
    };
    if came_later(order, &seen) {
        return Ok(Left::default()); // The guest has come back meanwhile: all that is here is its own.
    }
    let flags = ctx.options.flags_for(order.data.persistent, order.data.paused, order.data.block_migration);
    let undefines = flags.intersects(MigrationFlags::UNDEFINE_SOURCE);
    Ok(Left { copy: must_be_destroyed(ctx, &seen)?, definition: undefines && seen.domain.persistent, files })
}

/// Whether this migration or a later one brought the domain here. The copy that a migration leaves behind never carries its marker:
/// a domain with it has been on the destination, and was moved back by hand.
fn came_later(order: &CleanUp, seen: &SeenGuest) -> bool {
    seen.facts.marker.is_some_and(|marker| marker.migration >= order.migration)
}

/// Whether the domain is a copy that stands still because its guest has left. Anything that runs, or that its owner paused, is
/// a guest and not ours to end.
fn must_be_destroyed(ctx: &Context, seen: &SeenGuest) -> Result<bool, Fault> {
    let state = seen.facts.state;
    match state {
        GuestState::ShutOff | GuestState::Crashed => Ok(false),
        GuestState::PausedMigration | GuestState::PausedPostCopy if seen.domain.job.is_none() => Ok(true),
        // libvirt keeps the job of a post-copy that broke. The guest is whole on the other side, else there were no leave for this.
        GuestState::PausedPostCopyFailed => Ok(true),
        _ => Err(Fault::migration_error(format_args!(
            "domain {} on {} is {state}{}: it is not removed",
            seen.domain.name,
            ctx.options.host,
            seen.job_shown()
        ))),
    }
}

/// The files of moved disks that are still here.
async fn moved_files(order: &CleanUp) -> Vec<Doomed> {
    let moved = order.data.moved_disks().filter_map(|disk| match &disk.disk.source {
        DiskSource::File { path } => Some(Doomed { path: PathBuf::from(path), was: disk.disk.file.clone() }),
        _ => None,
    });
    let moved: Vec<Doomed> = moved.collect();
    if moved.is_empty() {
        return moved;
    }
    let there = move || moved.into_iter().filter(|file| file.path.symlink_metadata().is_ok()).collect();
    tokio::task::spawn_blocking(there).await.unwrap_or_default()
}
