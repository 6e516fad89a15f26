//! Going on with a post-copy that broke: the guest runs on the destination and waits there for pages that only the source has.
//!
//! The conductor orders it, again and again, each time after a longer pause. Then the destination's libvirt is tried first: libvirt itself
//! would hang in connect. Then leave is asked for, the guest is looked at, and libvirt gets the same call once more, with
//! `VIR_MIGRATE_POSTCOPY_RESUME`.

use std::sync::Arc;
use std::time::Duration;

use drover_common::rpc::latest::{CallState, GrantKind, GuestState, MigrateData, Recovery};
use tokio::time::Instant;
use tracing::{Instrument, debug, info, info_span};

use super::monitor::{End, Monitor};
use super::source::{self, Start};
use crate::actor::Seat;
use crate::context::Context;
use crate::facts;
use crate::flags::MigrationFlags;
use crate::grants::{self, NotGranted};
use crate::prechecks::reach;

/// Whatever the conductor says, it is not waited for longer.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Takes the order on, unless this life is still at the migration.
pub fn order(ctx: &Arc<Context>, order: Recovery) {
    let Recovery { with: order, pause_ms } = order;
    let Some(seat) = ctx.actors.enter_again(&ctx.ledger, order.of) else {
        debug!(migration.id = %order.of.migration, "order to recover ignored: it is in hand");
        return;
    };
    let span = info_span!("recovery", migration.id = %order.of.migration, server.id = %order.of.server);
    let pause = Duration::from_millis(pause_ms).min(PAUSE_MAX);
    ctx.life.spawn(run(Arc::clone(ctx), seat, order.data, pause).instrument(span));
}

async fn run(ctx: Arc<Context>, mut seat: Seat, data: MigrateData, pause: Duration) {
    let of = seat.of;
    if ctx.life.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
        return ctx.ledger.forget(of);
    }
    let start = match ready(&ctx, &seat, &data).await {
        Ok(start) => start,
        Err(why) => {
            ctx.ledger.set(of, CallState::ended(Some(why.clone())));
            return source::not_started(&ctx, &seat, None, why).await;
        }
    };
    let granted = match grants::ask(&ctx, of, GrantKind::RecoverPostCopy).await {
        Ok(granted) => granted,
        Err(NotGranted::Refused(fault)) => {
            debug!(error = %fault, "recovery refused: the order came late or twice");
            return ctx.ledger.forget(of);
        }
        Err(error) => {
            ctx.ledger.forget(of);
            return source::not_started(&ctx, &seat, None, error.to_string()).await;
        }
    };
    info!("going on with the post-copy");
    let mut call = start.call;
    call.flags |= MigrationFlags::POSTCOPY.with(MigrationFlags::POSTCOPY_RESUME).bits(); // Whatever is configured by now.
    let mut monitor = Monitor::new(&ctx, of, Box::new(start.policy), true);
    monitor.is_post_copy();
    ctx.ledger.set(of, CallState::InCall);
    let begin = Instant::now();
    let returned = ctx.driver.migrate(call);
    match monitor.watch(&mut seat, Some(returned)).await {
        End::Returned(result) => source::end(&ctx, &mut seat, monitor, result, begin.elapsed(), Some(granted.revision)).await,
        End::LetGo => info!("the agent stops; the migration goes on without it"),
        End::JobGone => {} // Only for jobs that were attached.
    }
}

/// Whether it can be tried now, and libvirt's call for it.
async fn ready(ctx: &Context, seat: &Seat, data: &MigrateData) -> Result<Start, String> {
    let (host, address) = (&data.destination.host, &data.destination.connect_address);
    let seen = facts::see(ctx, seat.of.server).await.map_err(|error| error.message)?;
    match seen.map(|seen| seen.facts.state) {
        Some(GuestState::PausedPostCopyFailed) => {}
        Some(state) => return Err(format!("the source's copy is {state}: there is nothing to recover")),
        None => return Err("the source has no copy".to_owned()),
    }
    let target = ctx.options.live_migration_uri.tcp_target(address).map_err(|fault| fault.message)?;
    if let Some((address, port)) = target {
        let reached = reach::reach(&address, port, ctx.options.connect_probe_timeout).await;
        reached.map_err(|why| format!("libvirt of {host} is not reached: {why}"))?;
    }
    source::prepare(ctx, seat.of, data).await.map_err(|fault| fault.message)
}
