//! Taking up again what an earlier life of the agent left: jobs go on in libvirt without their agent.
//!
//! Nothing is ever started here. A job that is there is watched until it ends; one that is not any more is reported with what is
//! seen now, and the conductor decides. What was asked of the job comes with the list: an earlier life may have been told.
//!
//! libvirt does not tell with which flags a job was started, so whether it may become post-copy is taken from the configuration of
//! now and from the guest. If that is wrong libvirt refuses the switch, and the copy goes on as it was.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use drover_common::ids::ServerId;
use drover_common::rpc::latest::{CallState, GuestState, JobKind, MigrationReport, ToConductor, Watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span, warn};

use crate::actor::Command;
use crate::context::Context;
use crate::domain_xml::{DiskLocation, DomainXml};
use crate::driver::{DriverError, if_there};
use crate::facts;
use crate::migration::monitor::Monitor;
use crate::migration::policy::convergence::{Convergence, Means};
use crate::migration::policy::weight_bytes;
use crate::migration::source;
use crate::reports;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The list that is being taken up; a newer one takes its place.
#[derive(Debug, Default)]
pub struct Resumption {
    current: Mutex<CancellationToken>,
}

impl Resumption {
    fn begin(&self, stop: &CancellationToken) -> CancellationToken {
        let list = stop.child_token();
        let old = std::mem::replace(&mut *self.current.lock().unwrap_or_else(PoisonError::into_inner), list.clone());
        old.cancel();
        list
    }
}

/// Begins to take up what the conductor says may be under way here. What is not on the list any more is not ours any more.
pub fn take_up(ctx: &Arc<Context>, watches: &[Watch]) {
    let list = ctx.resumption.begin(&ctx.life.stop);
    for &watch in watches {
        let (list, taking_up) = (list.clone(), take_up_until_done(Arc::clone(ctx), watch));
        ctx.life.spawn(async move {
            list.run_until_cancelled(taking_up).await;
        });
    }
}

/// Tries until it is done: the connection may have broken just now, or libvirt may be busy with the guest.
async fn take_up_until_done(ctx: Arc<Context>, watch: Watch) {
    let builder = ExponentialBuilder::default().with_min_delay(PAUSE_MIN).with_max_delay(PAUSE_MAX);
    let mut pauses = builder.with_jitter().without_max_times().build();
    let of = watch.of;
    // Another state than this: this very life has it in hand.
    while ctx.ledger.state(of.migration, of.attempt) == CallState::Unseen {
        match take_up_one(&ctx, watch).await {
            Ok(()) => return,
            Err(error) => warn!(migration.id = %of.migration, error = %error, "migration not taken up yet"),
        }
        tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
    }
}

async fn take_up_one(ctx: &Arc<Context>, watch: Watch) -> Result<(), DriverError> {
    let of = watch.of;
    let seen = facts::see(ctx, of.server).await?;
    // A post-copy that broke keeps its job, and nobody works on it: it is told of, and the conductor says when to go on.
    let broke = seen.as_ref().is_some_and(|seen| seen.facts.state == GuestState::PausedPostCopyFailed);
    let job = if_there(ctx.driver.job(of.server).await)?.filter(|job| job.kind == Some(JobKind::MigrationOut) && !broke);
    let Some((job, seen)) = job.zip(seen.as_ref()) else {
        let stands = seen.as_ref().is_some_and(|seen| seen.facts.state == GuestState::Paused);
        let seen = if stands && watch.force_complete_requested {
            ctx.ledger.note_stop(of.server); // An earlier life stopped it, to no avail: the owner never wanted it paused.
            facts::see(ctx, of.server).await?
        } else {
            seen
        };
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
        tokio::spawn(async move { reports::deliver(&ctx, of.migration, ToConductor::Report(report), &ctx.life.stop).await });
        return Ok(());
    };
    let (_, xml) = facts::live_xml(ctx, of.server).await?;
    let seat = match ctx.actors.enter(&ctx.ledger, of, CallState::Attached) {
        Ok(seat) => seat,
        Err(admission) => {
            debug!(migration.id = %of.migration, ?admission, "not watched");
            return Ok(());
        }
    };
    let memory = u64::try_from(xml.memory_mb).unwrap_or(0) << 20;
    let disks = u64::try_from(job.progress.disk_total).unwrap_or(0);
    let weight = weight_bytes(memory, (disks > 0).then_some(disks));
    let paused = seen.facts.state == GuestState::Paused;
    let mut flags = ctx.options.flags_for(seen.domain.persistent, paused, disks > 0);
    if watch.no_post_copy {
        flags = ctx.options.without_post_copy(flags);
    }
    let means = Means::of(flags);
    let policy = Convergence::new(&ctx.options.policy, weight, means);
    let mut monitor = Monitor::new(ctx, of, Box::new(policy), means.post_copy);
    if disks > 0 {
        monitor.copies(copied_disks(ctx, of.server, &xml).await);
    }
    if watch.abort_requested {
        monitor.want(Command::Abort);
    }
    if watch.force_complete_requested {
        monitor.want(Command::ForceComplete);
    }
    if watch.bandwidth_mib.is_some() {
        monitor.want(Command::Bandwidth(watch.bandwidth_mib)); // It may have changed while nobody was here to hear it.
    }
    monitor.take_up(seen.facts.state, job.progress);
    let span = info_span!("migration", migration.id = %of.migration, server.id = %of.server);
    let watching = source::watch_attached(Arc::clone(ctx), seat, monitor, Some(watch.revision));
    ctx.life.spawn(watching.instrument(span));
    Ok(())
}

/// The disks that libvirt copies; none if it does not say.
async fn copied_disks(ctx: &Context, server: ServerId, xml: &DomainXml) -> Vec<String> {
    let filled = xml.disks.iter().filter(|disk| disk.location != DiskLocation::Empty);
    let targets: Vec<String> = filled.map(|disk| disk.target.clone()).collect();
    let usage = ctx.driver.disk_usage(server, targets.clone()).await.unwrap_or_default();
    targets.into_iter().zip(usage).filter(|(_, usage)| usage.block_job).map(|(target, _)| target).collect()
}
