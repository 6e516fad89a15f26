//! The destination's part: make ready before, take over after.

use drover_common::fault::Fault;
use drover_common::rpc::latest::{DomainsReport, GuestState, JobKind, Marker, WithData};
use futures::future::try_join_all;
use tracing::warn;

use crate::context::Context;
use crate::domains;
use crate::driver::{DriverError, XmlKind};
use crate::facts::{self, SeenGuest};
use crate::storage::disks::{self, Owner};

/// Answers `pre_live_migration`: makes the files that disks are copied into. Asked again, it finds its own files and is content.
pub async fn pre_live_migration(ctx: &Context, order: &WithData) -> Result<(), Fault> {
    let owner = Owner { migration: order.of.migration, attempt: order.of.attempt };
    let _turn = ctx.arrivals.make_ready(owner.migration, owner.attempt).await.ok_or_else(|| {
        Fault::migration_error(format_args!(
            "attempt {} of migration {} was rolled back on {} already",
            owner.attempt, owner.migration, ctx.options.host
        ))
    })?;
    ctx.expected.expect(order.of.server, &order.data.xml);
    let making = order.data.copied_disks().map(|disk| disks::create(&disk.disk, owner, &ctx.options.host));
    try_join_all(making).await?;
    let (probes, migration) = (ctx.probes.clone(), owner.migration);
    tokio::spawn(async move { probes.remove(migration).await });
    Ok(())
}

/// Answers `post_live_migration_at_destination`: the guest is here; what the migration left on it is tidied up.
pub async fn post_live_migration(ctx: &Context, order: &WithData) -> Result<DomainsReport, Fault> {
    let failed = |error: DriverError| error.into_fault(&ctx.options.host, order.of.server, Fault::migration_error);
    let mut seen = arrived(ctx, order).await?;
    unmark(ctx, order).await;
    if order.data.persistent && seen.facts.state.is_active() && !seen.domain.persistent {
        let definition = ctx.driver.xml(order.of.server, XmlKind::Persistent).await.map_err(failed)?;
        ctx.driver.define(definition).await.map_err(failed)?;
        seen = arrived(ctx, order).await?;
    }
    let (_, xml) = facts::live_xml(ctx, order.of.server).await.map_err(failed)?;
    Ok(ctx.domains.of_one(ctx, domains::report(&seen, &xml)))
}

/// The guest, if it is here with all its state. It may have gone off since it came: its definition with our marker says so, and a
/// transient one leaves nothing, which is "not found".
async fn arrived(ctx: &Context, order: &WithData) -> Result<SeenGuest, Fault> {
    let host = &ctx.options.host;
    let seen = facts::see(ctx, order.of.server).await;
    let seen = seen.map_err(|error| error.into_fault(host, order.of.server, Fault::migration_error))?;
    let seen = seen.ok_or_else(|| Fault::instance_not_found(order.of.server))?;
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

/// The copied disks are the guest's now: no roll-back may remove them.
async fn unmark(ctx: &Context, order: &WithData) {
    let owner = Owner { migration: order.of.migration, attempt: order.of.attempt };
    let copied: Vec<_> = order.data.copied_disks().map(|disk| disk.disk.clone()).collect();
    if copied.is_empty() {
        return;
    }
    let host = ctx.options.host.clone();
    let unmarking = tokio::task::spawn_blocking(move || {
        for path in disks::marked(&copied, owner) {
            if let Err(error) = disks::unmark(&path) {
                warn!(error = %error, path = %path.display(), host = %host, "mark not taken off the disk");
            }
        }
    });
    unmarking.await.ok();
}
