//! The destination's part: make ready before, take over after.

use drover_common::fault::Fault;
use drover_common::rpc::latest::{Arrival, DiskSource, GuestState, JobKind, Marker, OfAttempt, StorageProbe, WithData, WriteImage};
use futures::future::try_join_all;
use tokio::time::Instant;
use tracing::warn;

use crate::arrivals::Turn;
use crate::context::Context;
use crate::domains;
use crate::driver::{DriverError, XmlKind};
use crate::facts::{self, SeenGuest};
use crate::storage::disks::{self, Owner};
use crate::storage::{carry, moved_directories, probe};

/// Answers `pre_live_migration`: makes the files that disks are copied or carried into. Asked again, it finds its own files and is
/// content.
pub async fn pre_live_migration(ctx: &Context, order: &WithData) -> Result<(), Fault> {
    let owner = owner(order.of);
    let _turn = turn(ctx, owner).await?;
    ctx.arrivals.may_come(order.of.server);
    ctx.expected.expect(order.of.server, &order.data.xml);
    ctx.announced.expect(order.of.server);
    let making = order.data.moved_disks().map(|disk| disks::create(disk, owner, &ctx.options.host));
    try_join_all(making).await?;
    let (probes, migration) = (ctx.probes.clone(), owner.migration);
    tokio::spawn(async move { probes.remove(migration).await });
    Ok(())
}

fn owner(of: OfAttempt) -> Owner {
    Owner { migration: of.migration, attempt: of.attempt }
}

async fn turn(ctx: &Context, owner: Owner) -> Result<Turn, Fault> {
    ctx.arrivals.make_ready(owner.migration, owner.attempt).await.ok_or_else(|| {
        Fault::migration_error(format_args!(
            "attempt {} of migration {} was rolled back on {} already",
            owner.attempt, owner.migration, ctx.options.host
        ))
    })
}

/// Answers `write_image`: writes into a file that was made for this attempt to be carried into, and into no other.
pub async fn write_image(ctx: &Context, order: WriteImage) -> Result<(), Fault> {
    let WriteImage { with, target, piece } = order;
    let owner = owner(with.of);
    let _turn = turn(ctx, owner).await?;
    let carried = with.data.carried_disks().find(|disk| disk.disk.target == target);
    let Some(DiskSource::File { path }) = carried.map(|disk| disk.disk.source.clone()) else {
        return Err(Fault::migration_error(format_args!("disk {target} is none that is carried over")));
    };
    let file = path.clone();
    let written =
        tokio::task::spawn_blocking(move || carry::write(file.as_ref(), owner, &piece)).await.map_err(Fault::unexpected)?;
    written.map_err(|error| Fault::migration_error(format_args!("disk {target} ({path}) on {}: {error}", ctx.options.host)))
}

/// Answers `probe_storage`: the source looks for these files before it removes its own.
pub async fn probe_storage(ctx: &Context, order: &WithData) -> Vec<StorageProbe> {
    ctx.probes.write(order.of.migration, moved_directories(&order.data), probe::DESTINATION_KEEP).await
}

/// Answers `post_live_migration_at_destination`: the guest is here; what the migration left on it is tidied up.
pub async fn post_live_migration(ctx: &Context, order: &WithData) -> Result<Arrival, Fault> {
    let failed = |error: DriverError| error.into_fault(&ctx.options.host, order.of.server, Fault::migration_error);
    let looked = Instant::now();
    let mut seen = arrived(ctx, order).await?;
    unmark(ctx, order).await;
    if order.data.persistent && seen.facts.state.is_active() && !seen.domain.persistent {
        let definition = ctx.driver.xml(order.of.server, XmlKind::Persistent).await.map_err(failed)?;
        ctx.driver.define(definition).await.map_err(failed)?;
        seen = arrived(ctx, order).await?;
    }
    let (_, xml) = facts::live_xml(ctx, order.of.server).await.map_err(failed)?;
    let report = ctx.domains.of_one(ctx, domains::report(&seen, &xml));
    ctx.arrivals.settle(order.of.server);
    ctx.domains.told_otherwise(order.of.server, looked);
    Ok(Arrival { report, announced_after_ms: ctx.announced.after_ms(order.of.server) })
}

/// The guest, if it is here with all its state. It may have gone off since it came: its definition with our marker says so, and a
/// transient one leaves nothing, which is "not found".
async fn arrived(ctx: &Context, order: &WithData) -> Result<SeenGuest, Fault> {
    let host = &ctx.options.host;
    let seen = facts::see(ctx, order.of.server).await;
    let seen = seen.map_err(|error| error.into_fault(host, order.of.server, Fault::migration_error))?;
    let Some(seen) = seen else {
        ctx.arrivals.settle(order.of.server);
        return Err(Fault::instance_not_found(order.of.server));
    };
    let state = seen.facts.state;
    let ours = Marker { migration: order.of.migration, attempt: order.of.attempt };
    let waits = match state {
        GuestState::PausedMigration | GuestState::RunningPostCopy | GuestState::RunningPostCopyFailed => true,
        GuestState::ShutOff | GuestState::Crashed => seen.facts.marker != Some(ours),
        _ => seen.domain.job == Some(JobKind::MigrationIn),
    };
    if waits {
        return Err(Fault::migration_error(format_args!(
            "instance {} has not arrived on {host} yet: it is {state}",
            order.of.server
        )));
    }
    Ok(seen)
}

/// The moved disks are the guest's now: no roll-back may remove them.
async fn unmark(ctx: &Context, order: &WithData) {
    let owner = owner(order.of);
    let moved: Vec<_> = order.data.moved_disks().cloned().collect();
    if moved.is_empty() {
        return;
    }
    let host = ctx.options.host.clone();
    let unmarking = tokio::task::spawn_blocking(move || {
        for path in disks::marked(&moved, owner) {
            if let Err(error) = disks::unmark(&path) {
                warn!(error = %error, path = %path.display(), host = %host, "mark not taken off the disk");
            }
        }
    });
    unmarking.await.ok();
}
