//! The destination's clean-up after a failure: only what one attempt left, told by its marks.

use std::path::PathBuf;

use drover_common::fault::Fault;
use drover_common::rpc::latest::{CleanUp, GrantKind, GuestState, Marker};
use tracing::info;

use crate::context::Context;
use crate::driver::{Action, DriverError, if_there};
use crate::facts::{self, SeenGuest};
use crate::grants::{self, NotGranted};
use crate::storage::disks::{self, Owner};

/// Answers `rollback_live_migration_at_destination`.
pub async fn rollback(ctx: &Context, order: &CleanUp) -> Result<(), Fault> {
    let server = order.server;
    let failed = |error: DriverError| error.into_fault(&ctx.options.host, server, Fault::migration_error);
    ctx.probes.remove(order.migration).await;
    let (seen, files) = tokio::join!(facts::see(ctx, server), marked_files(order));
    let left = match seen.map_err(failed)? {
        Some(seen) => what_is_left(ctx, order, &seen)?,
        None => Left::default(),
    };
    if left == Left::default() && files.is_empty() {
        return Ok(());
    }
    let granted = grants::ask_by(ctx, order.migration, order.authority, GrantKind::RollbackDestination).await;
    granted.map_err(NotGranted::into_fault)?;
    info!(migration.id = order.migration.0, server.id = %server, ?left, files = files.len(), "removing what the attempt left here");
    if left.incoming {
        if_there(ctx.driver.act(server, Action::Destroy).await).map_err(failed)?;
    }
    if left.definition {
        if_there(ctx.driver.act(server, Action::Undefine).await).map_err(failed)?;
    }
    disks::remove_all_unused(files).await
}

/// What of the domain is the attempt's.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Left {
    /// A QEMU that waits for its guest.
    incoming: bool,
    /// A definition.
    definition: bool,
}

fn what_is_left(ctx: &Context, order: &CleanUp, seen: &SeenGuest) -> Result<Left, Fault> {
    let ours = Marker { migration: order.migration, attempt: order.left_by };
    if seen.facts.marker != Some(ours) {
        return Ok(Left::default()); // It was here before, or another attempt brought it.
    }
    let state = seen.facts.state;
    match state {
        GuestState::PausedMigration | GuestState::ShutOff | GuestState::Crashed => {
            Ok(Left { incoming: state.is_active(), definition: seen.domain.persistent })
        }
        _ => Err(Fault::migration_error(format_args!(
            "domain {} on {} is {state}: it is not removed",
            seen.domain.name, ctx.options.host
        ))),
    }
}

async fn marked_files(order: &CleanUp) -> Vec<PathBuf> {
    let owner = Owner { migration: order.migration, attempt: order.left_by };
    let copied: Vec<_> = order.data.copied_disks().map(|disk| disk.disk.clone()).collect();
    if copied.is_empty() {
        return Vec::new();
    }
    tokio::task::spawn_blocking(move || disks::marked(&copied, owner)).await.unwrap_or_default()
}
