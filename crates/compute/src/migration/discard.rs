//! Removing the copy that an operator did not choose in an ownership conflict: the only order that ends a guest that runs.

use drover_common::fault::Fault;
use drover_common::rpc::latest::{GrantKind, OfAttempt};
use tracing::warn;

use crate::context::Context;
use crate::driver::{Action, DriverError, if_there};
use crate::facts;
use crate::grants::{self, NotGranted};

/// Answers `discard_guest`. Its disks stay: the copy that was chosen may use them, and what was copied is cleaned up by its mark.
pub async fn discard_guest(ctx: &Context, of: OfAttempt) -> Result<(), Fault> {
    let host = &ctx.options.host;
    let failed = |error: DriverError| error.into_fault(host, of.server, Fault::migration_error);
    if facts::see(ctx, of.server).await.map_err(failed)?.is_none() {
        return Ok(());
    }
    grants::ask(ctx, of, GrantKind::Discard).await.map_err(NotGranted::into_fault)?;
    let Some(seen) = facts::see(ctx, of.server).await.map_err(failed)? else { return Ok(()) };
    if seen.domain.job.is_some() {
        return Err(Fault::migration_error(format_args!(
            "domain {} on {host} is {}{}: it is not removed while libvirt works on it",
            seen.domain.name,
            seen.facts.state,
            seen.job_shown()
        )));
    }
    warn!(migration.id = %of.migration, server.id = %of.server, state = %seen.facts.state, "removing the copy that was not chosen");
    if seen.facts.state.is_active() {
        if_there(ctx.driver.act(of.server, Action::Destroy).await).map_err(failed)?;
    }
    if seen.domain.persistent {
        if_there(ctx.driver.act(of.server, Action::Undefine).await).map_err(failed)?;
    }
    Ok(())
}
