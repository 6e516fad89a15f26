//! The destination's clean-up after a failure: only what one attempt left, told by its marks.

use drover_common::fault::Fault;
use drover_common::rpc::latest::{Authority, CleanUp, GrantKind, GuestState, Marker};
use tracing::{info, warn};

use crate::context::Context;
use crate::driver::{Action, DriverError, if_there};
use crate::facts::{self, SeenGuest};
use crate::grants::{self, NotGranted};
use crate::storage::disks::{self, Doomed, Owner};

/// Answers `rollback_live_migration_at_destination`. Leave can take long and so can libvirt, so before each deed it is looked again
/// what is left.
pub async fn rollback(ctx: &Context, order: &CleanUp) -> Result<(), Fault> {
    let server = order.server;
    let failed = |error: DriverError| error.into_fault(&ctx.options.host, server, Fault::migration_error);
    let _turn = ctx.arrivals.roll_back(order.migration, order.left_by).await;
    ctx.arrivals.settle(server);
    ctx.probes.remove(order.migration).await;
    let left = look(ctx, order).await?;
    if left == Left::default() {
        return Ok(());
    }
    let granted = grants::ask_by(ctx, order.migration, order.authority, GrantKind::RollbackDestination).await;
    granted.map_err(NotGranted::into_fault)?;
    info!(migration.id = %order.migration, server.id = %server, ?left, "removing what the attempt left here");
    if look(ctx, order).await?.incoming {
        if_there(ctx.driver.act(server, Action::Destroy).await).map_err(failed)?;
    }
    if look(ctx, order).await?.definition {
        if_there(ctx.driver.act(server, Action::Undefine).await).map_err(failed)?;
    }
    disks::remove_all_unused(look(ctx, order).await?.files).await
}

/// What the attempt left here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    /// A QEMU that waits for its guest.
    incoming: bool,
    /// A definition.
    definition: bool,
    /// Files that were made for it.
    files: Vec<Doomed>,
}

/// Looks what is left; a fault if the guest ran here.
async fn look(ctx: &Context, order: &CleanUp) -> Result<Left, Fault> {
    let host = &ctx.options.host;
    let failed = |error: DriverError| error.into_fault(host, order.server, Fault::migration_error);
    let (seen, files) = tokio::join!(facts::see(ctx, order.server), marked_files(order));
    let ours = Marker { migration: order.migration, attempt: order.left_by };
    // Any other was here before, or another attempt brought it.
    let Some(seen) = seen.map_err(failed)?.filter(|seen| seen.facts.marker == Some(ours)) else {
        return Ok(Left { files, ..Left::default() });
    };
    let state = seen.facts.state;
    match (state, order.authority) {
        (GuestState::PausedMigration | GuestState::ShutOff | GuestState::Crashed, _) => {
            Ok(Left { incoming: state.is_active(), definition: seen.domain.persistent, files })
        }
        (GuestState::Running, Authority::Debt { .. }) if seen.domain.job.is_none() => Err(stop(ctx, order, &seen).await?),
        _ => Err(not_removed(ctx, &seen, state)),
    }
}

/// Stops a copy that runs beside the guest: its migration was closed with the guest on the source, since the last word between the
/// two libvirts got lost. It ran, so it is not removed: an operator chooses.
async fn stop(ctx: &Context, order: &CleanUp, seen: &SeenGuest) -> Result<Fault, Fault> {
    let failed = |error: DriverError| error.into_fault(&ctx.options.host, order.server, Fault::migration_error);
    let granted = grants::ask_by(ctx, order.migration, order.authority, GrantKind::Suspend).await;
    granted.map_err(NotGranted::into_fault)?;
    let now = facts::see(ctx, order.server).await.map_err(failed)?;
    if now.as_ref().map(|now| &now.facts) != Some(&seen.facts) {
        return Err(Fault::migration_error(format_args!(
            "domain {} on {} changed while leave to suspend it was asked for: it was {}, and is {}",
            seen.domain.name,
            ctx.options.host,
            seen.facts.state,
            now.map_or_else(|| "gone".to_owned(), |now| now.facts.state.to_string())
        )));
    }
    warn!(migration.id = %order.migration, server.id = %order.server, "suspending an unconfirmed copy that runs beside the guest");
    ctx.driver.act(order.server, Action::Suspend).await.map_err(failed)?;
    Ok(not_removed(ctx, seen, GuestState::Paused))
}

fn not_removed(ctx: &Context, seen: &SeenGuest, state: GuestState) -> Fault {
    let (name, host, job) = (&seen.domain.name, &ctx.options.host, seen.job_shown());
    Fault::migration_error(match state {
        GuestState::Paused => format!(
            "domain {name} on {host} is suspended: it ran here unconfirmed, so it is not removed. Look at both copies, then destroy the \
             wrong one with virsh"
        ),
        state => format!("domain {name} on {host} is {state}{job}: it is not removed"),
    })
}

async fn marked_files(order: &CleanUp) -> Vec<Doomed> {
    let owner = Owner { migration: order.migration, attempt: order.left_by };
    let moved: Vec<_> = order.data.moved_disks().cloned().collect();
    if moved.is_empty() {
        return Vec::new();
    }
    let looking = tokio::task::spawn_blocking(move || disks::marked(&moved, owner)).await.unwrap_or_default();
    looking.into_iter().map(|path| Doomed { path, was: None }).collect()
}
