//! Taking up again what an earlier life of the agent left: jobs go on in libvirt without their agent.
//!
//! Nothing is ever started here. A job that is there is watched until it ends; one that is not any more is reported with what is
//! seen now, and the conductor decides.

use std::sync::Arc;

use drover_common::rpc::latest::{CallState, JobKind, MigrationReport, Watch};
use tracing::{Instrument, debug, info_span, warn};

use crate::context::Context;
use crate::driver::{DriverError, if_there};
use crate::facts;
use crate::flags::MigrationFlags;
use crate::migration::monitor::Monitor;
use crate::migration::policy::{Policy, weight_bytes};
use crate::migration::source;
use crate::reports;

/// Takes up what the conductor says may be under way here.
pub async fn take_up(ctx: &Arc<Context>, watches: &[Watch]) {
    for watch in watches {
        let of = watch.of;
        if ctx.ledger.state(of.migration, of.attempt) != CallState::Unseen {
            continue; // This very life has it in hand.
        }
        if let Err(error) = take_up_one(ctx, *watch).await {
            // The connection broke just now; after the next one the conductor is asked again.
            warn!(migration.id = of.migration.0, error = %error, "migration not taken up yet");
        }
    }
}

async fn take_up_one(ctx: &Arc<Context>, watch: Watch) -> Result<(), DriverError> {
    let of = watch.of;
    let job = if_there(ctx.driver.job(of.server).await)?.filter(|job| job.kind == Some(JobKind::MigrationOut));
    let seen = facts::see(ctx, of.server).await?;
    let Some((job, seen)) = job.zip(seen.as_ref()) else {
        let report = MigrationReport {
            migration: of.migration,
            attempt: of.attempt,
            server: of.server,
            revision: Some(watch.revision),
            facts: facts::facts(ctx, seen.as_ref(), CallState::Unseen),
            result: None,
            not_started: None,
        };
        let ctx = Arc::clone(ctx);
        tokio::spawn(async move { reports::deliver(&ctx, report, &ctx.life.stop).await });
        return Ok(());
    };
    let (_, xml) = facts::live_xml(ctx, of.server).await?;
    let seat = match ctx.actors.enter(&ctx.ledger, of, CallState::Attached) {
        Ok(seat) => seat,
        Err(admission) => {
            debug!(migration.id = of.migration.0, ?admission, "not watched");
            return Ok(());
        }
    };
    let memory = u64::try_from(xml.memory_mb).unwrap_or(0) << 20;
    let disks = u64::try_from(job.progress.disk_total).unwrap_or(0);
    let weight = weight_bytes(memory, (disks > 0).then_some(disks));
    let flags = ctx.options.flags_for(seen.domain.persistent, false, disks > 0);
    let policy = Policy::new(&ctx.options.policy, weight);
    let mut monitor = Monitor::new(ctx, of, policy, flags.intersects(MigrationFlags::POSTCOPY));
    monitor.take_up(seen.facts.state, job.progress);
    let span = info_span!("migration", migration.id = of.migration.0, server.id = %of.server);
    let watching = source::watch_attached(Arc::clone(ctx), seat, monitor, Some(watch.revision));
    ctx.life.spawn(watching.instrument(span));
    Ok(())
}
