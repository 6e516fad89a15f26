//! The source's part: leave, start, watch, report.
//!
//! Between the order and libvirt's call stands only the conductor's leave; everything else (connection, XML, events) is made ready
//! while it is asked for. Between the return of the call and the report stands only a look at the guest.

use std::sync::Arc;
use std::time::Duration;

use drover_common::fault::Fault;
use drover_common::ids::Revision;
use drover_common::migration::JobResult;
use drover_common::rpc::latest::{
    CallState, GrantKind, GuestState, HostFacts, JobKind, Marker, MigrateData, MigrationReport, OfAttempt, ToConductor, WithData,
};
use drover_common::telemetry;
use tokio::time::Instant;
use tracing::{Instrument, debug, info, info_span, warn};

use super::monitor::bandwidth::of_each_disk;
use super::monitor::{End, Monitor};
use super::policy::convergence::{Convergence, Means};
use super::policy::weight_bytes;
use super::uri::migrate_uri;
use crate::actor::{Command, Seat};
use crate::context::Context;
use crate::domain_xml::DomainXml;
use crate::domain_xml::edit::Edit;
use crate::driver::{DriverError, ErrorClass, MigrateCall, PauseReason, RunState, XmlKind};
use crate::facts;
use crate::flags::MigrationFlags;
use crate::grants::{self, NotGranted};
use crate::stream;
use crate::{metrics, reports};

/// Between two looks at a guest while libvirt does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Takes an order on, unless it is known or an older attempt's.
pub fn order(ctx: &Arc<Context>, order: WithData) {
    if ctx.powers.is_under_way(order.of.server) {
        debug!(migration.id = %order.of.migration, "order ignored: a power action is under way; it will be given again");
        return;
    }
    let seat = match ctx.actors.enter(&ctx.ledger, order.of, CallState::Pending) {
        Ok(seat) => seat,
        Err(admission) => {
            debug!(migration.id = %order.of.migration, attempt = order.of.attempt.0, ?admission, "order ignored");
            return;
        }
    };
    debug!(migration.id = %order.of.migration, attempt = order.of.attempt.0, "order taken");
    ctx.driver.prepare_migration(order.of.server);
    ctx.ledger.forget_stop(order.of.server);
    let span = info_span!("migration", migration.id = %order.of.migration, server.id = %order.of.server);
    ctx.life.spawn(run(Arc::clone(ctx), seat, order.data).instrument(span));
}

async fn run(ctx: Arc<Context>, mut seat: Seat, data: MigrateData) {
    let of = seat.of;
    let begin = Instant::now();
    let leave = async { (grants::ask(&ctx, of, GrantKind::Start).await, begin.elapsed()) };
    let ready = async { (prepare(&ctx, of, &data).await, begin.elapsed()) };
    let both = Box::pin(ctx.life.stop.run_until_cancelled(async { tokio::join!(leave, ready) })).await;
    let Some(((granted, leave_took), (start, ready_took))) = both else {
        return ctx.ledger.forget(of); // Leave that was given names this life; the next one says that nothing was started.
    };
    let granted = match granted {
        Ok(granted) => granted,
        Err(NotGranted::Refused(fault)) => {
            debug!(error = %fault, "start refused: the order came late or twice");
            return ctx.ledger.forget(of);
        }
        Err(error) => {
            ctx.ledger.forget(of);
            return not_started(&ctx, &seat, None, error.to_string()).await;
        }
    };
    let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
    debug!(
        migration.id = %of.migration,
        leave_ms = milliseconds(leave_took),
        ready_ms = milliseconds(ready_took),
        "start granted"
    );
    let revision = Some(granted.revision);
    let mut commands: Vec<Command> = std::iter::from_fn(|| seat.commands.try_recv().ok()).collect();
    let start = match start {
        Ok(_) if granted.abort_requested || commands.contains(&Command::Abort) => {
            Err("an abort was asked for before the start".to_owned())
        }
        start => start.map_err(|fault| fault.message),
    };
    match start {
        Ok(mut start) => {
            let share = granted.bandwidth_mib;
            start.call.bandwidth_mib = of_each_disk(&ctx.options, share, start.call.migrate_disks.len());
            if start.call.bandwidth_mib != ctx.options.bandwidth(share) {
                commands.insert(0, Command::Bandwidth(share)); // The memory, which comes after the disks, may have all of it.
            }
            migrate(&ctx, &mut seat, start, &data, &commands, revision).await;
        }
        Err(why) => {
            ctx.ledger.set(of, CallState::ended(Some(why.clone())));
            not_started(&ctx, &seat, revision, why).await;
        }
    }
}

/// Calls libvirt and stays until the outcome is reported.
async fn migrate(
    ctx: &Arc<Context>,
    seat: &mut Seat,
    start: Start,
    data: &MigrateData,
    commands: &[Command],
    revision: Option<Revision>,
) {
    let of = seat.of;
    let mut monitor = Monitor::new(ctx, of, Box::new(start.policy), start.means.post_copy);
    monitor.runs_under(&start.call);
    for &command in commands {
        monitor.want(command); // It came while leave was asked for.
    }
    ctx.ledger.set(of, CallState::InCall);
    let begin = Instant::now();
    let returned = ctx.driver.migrate(start.call);
    monitor.tell_plan(data);
    tokio::spawn({
        let ctx = Arc::clone(ctx);
        async move { ctx.probes.remove(of.migration).await }
    });
    match monitor.watch(seat, Some(returned)).await {
        End::Returned(result) => end(ctx, seat, monitor, result, begin.elapsed(), revision).await,
        End::LetGo => info!("the agent stops; the migration goes on without it"),
        End::JobGone => {} // Only for jobs that were attached.
    }
}

/// What is made ready while the leave is asked for.
pub(super) struct Start {
    pub(super) call: MigrateCall,
    pub(super) policy: Convergence,
    means: Means,
}

/// The guest's XML for the other side, and all that libvirt's call needs. Also read now, not taken from the checks: the guest may
/// have changed, and its secrets never leave the host by message.
pub(super) async fn prepare(ctx: &Context, of: OfAttempt, data: &MigrateData) -> Result<Start, Fault> {
    let failed = |error: DriverError| error.into_fault(&ctx.options.host, of.server, Fault::migration_error);
    let (domain, live, definition) = tokio::join!(
        ctx.driver.domain(of.server),
        ctx.driver.xml(of.server, XmlKind::Migratable),
        ctx.driver.xml(of.server, XmlKind::Persistent)
    );
    let (domain, live, definition) = (domain.map_err(failed)?, live.map_err(failed)?, definition.map_err(failed)?);
    let to = &data.destination;
    let edit = Edit {
        marker: Marker { migration: of.migration, attempt: of.attempt },
        vnc_listen: to.graphics_listen_addr_vnc.as_deref(),
        spice_listen: to.graphics_listen_addr_spice.as_deref(),
        networks: &to.networks,
        consoles: &to.consoles,
        flattened: data.flattened_files().collect(),
    };
    let edited = |xml: &str| {
        edit.apply(xml).map_err(|error| Fault::migration_error(format_args!("XML for {}: {}", to.host, telemetry::chain(&error))))
    };
    let migrate_disks: Vec<String> = data.copied_disks().map(|disk| disk.disk.target.clone()).collect();
    // One that stands since post-copy began runs on the other side.
    let left = matches!(domain.state, RunState::Paused(PauseReason::PostCopy | PauseReason::PostCopyFailed));
    let paused = matches!(domain.state, RunState::Paused(_)) && !left;
    let mut flags = ctx.options.flags_for(domain.persistent, paused, !migrate_disks.is_empty());
    if data.flattens() {
        flags = flags.copying_whole_disks();
    }
    if data.no_post_copy.is_some() {
        flags = ctx.options.without_post_copy(flags);
    }
    let stream = data.stream.clone().unwrap_or_else(|| ctx.options.stream.by_themselves(flags));
    let flags = stream::flags_of(&stream, flags);
    let led_there = to.inbound_address_set && !flags.intersects(MigrationFlags::TUNNELLED);
    let call = MigrateCall {
        migration: of.migration,
        server: of.server,
        destination_uri: ctx.options.live_migration_uri.uri(&to.connect_address)?,
        flags: flags.bits(),
        destination_xml: edited(&live)?,
        persistent_xml: flags.intersects(MigrationFlags::PERSIST_DEST).then(|| edited(&definition)).transpose()?,
        migrate_uri: led_there.then(|| migrate_uri(&to.connect_address)).transpose()?,
        migrate_disks,
        bandwidth_mib: ctx.options.bandwidth_mib,
        parallel_connections: stream.parallel_connections,
        zstd_level: stream.zstd_level,
    };
    let disks = data.copied_disks().map(|disk| disk.disk.capacity_bytes);
    let memory = DomainXml::parse(&live).map_or(0, |domain| domain.memory_mb);
    let weight = weight_bytes(u64::try_from(memory).unwrap_or(0) << 20, disks);
    let means = Means::of(flags);
    Ok(Start { call, policy: Convergence::new(&ctx.options.policy, weight, means), means })
}

/// Watches a job that an earlier life of the agent started.
pub async fn watch_attached(ctx: Arc<Context>, mut seat: Seat, mut monitor: Monitor, revision: Option<Revision>) {
    metrics::adopted();
    info!("watching a migration that an earlier life of the agent started");
    watch_on(&ctx, &mut seat, &mut monitor, revision, None).await;
}

/// Watches without a call, until the job is gone, and reports. `lost` is libvirt's word when our own call broke with its connection.
async fn watch_on(ctx: &Arc<Context>, seat: &mut Seat, monitor: &mut Monitor, revision: Option<Revision>, lost: Option<String>) {
    let none = None::<std::future::Pending<Result<(), DriverError>>>;
    if matches!(monitor.watch(seat, none).await, End::LetGo) {
        return info!("the agent stops; the migration goes on without it");
    }
    monitor.let_stop_finish().await;
    let account = monitor.account(true, None).await;
    let completed = account.as_ref().is_some_and(|account| account.total_ms.is_some());
    let unheard =
        || lost.unwrap_or_else(|| "the job ended; what libvirt said of it went to an earlier life of the agent".to_owned());
    let error = (!completed).then(unheard);
    ctx.ledger.set(seat.of, CallState::Ended { error, taken_back: monitor.why_taken_back() });
    let facts = look_at_last(ctx, seat.of).await;
    report(ctx, seat, revision, facts, account, None).await;
}

/// The call returned: looks what came of it and reports.
pub(super) async fn end(
    ctx: &Arc<Context>,
    seat: &mut Seat,
    mut monitor: Monitor,
    result: Result<(), DriverError>,
    took: Duration,
    revision: Option<Revision>,
) {
    let of = seat.of;
    if let Err(error) = &result {
        if monitor.took_it_back() {
            info!(error = %error, "the migration was taken back");
        } else {
            warn!(error = %error, code = error.code, "libvirt's migration failed");
        }
        if error.class == ErrorClass::Unavailable && job_goes_on(ctx, of).await {
            ctx.ledger.set(of, CallState::Attached);
            return watch_on(ctx, seat, &mut monitor, revision, Some(error.message.clone())).await;
        }
    }
    let succeeded = result.is_ok();
    if !succeeded {
        monitor.let_stop_finish().await;
        monitor.forget_bandwidth();
    }
    let error = result.err().map(|error| match error.class {
        ErrorClass::Unavailable => format!("the connection to libvirt broke: {}", error.message),
        _ => error.message,
    });
    metrics::returned(monitor.how_it_ended(succeeded), took);
    let stood = monitor.stood_for();
    ctx.ledger.set(of, CallState::Ended { error, taken_back: monitor.why_taken_back() });
    let looked = Instant::now();
    let (facts, account) = tokio::join!(look_at_last(ctx, of), monitor.account(succeeded, Some(took)));
    if succeeded && facts.as_ref().is_some_and(|facts| facts.guest.is_none()) {
        ctx.domains.told_otherwise(of.server, looked); // It has left: the report says so.
    }
    if let Some(blackout) = blackout(succeeded, stood, account.as_ref()) {
        metrics::blackout(blackout);
    }
    report(ctx, seat, revision, facts, account, None).await;
}

/// How long the guest ran on neither host: since it was stopped for its copy's sake, else as long as libvirt says.
fn blackout(arrived: bool, stood: Option<Duration>, account: Option<&JobResult>) -> Option<Duration> {
    let downtime = account.and_then(|account| account.downtime_ms).and_then(|ms| u64::try_from(ms).ok());
    arrived.then(|| stood.or(downtime.map(Duration::from_millis)))?
}

/// Whether libvirt still has the job of a call that broke with its connection.
async fn job_goes_on(ctx: &Context, of: OfAttempt) -> bool {
    look(ctx, of).await.is_some_and(|facts| facts.job == Some(JobKind::MigrationOut))
}

/// The facts, as soon as libvirt can be asked; none when the process ends before.
async fn look(ctx: &Context, of: OfAttempt) -> Option<HostFacts> {
    let mut connection = ctx.driver.connection();
    loop {
        match facts::host_facts(ctx, of).await {
            Ok(facts) => return Some(facts),
            Err(error) => debug!(error = %error, "no facts yet"),
        }
        tokio::select! {
            _ = connection.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {} // libvirt is there but was busy.
            () = ctx.life.stop.cancelled() => return None,
        }
    }
}

/// The facts after the job. A guest that does not stand is no longer one that we stopped: it goes on, or is gone.
async fn look_at_last(ctx: &Context, of: OfAttempt) -> Option<HostFacts> {
    let facts = look(ctx, of).await?;
    if facts.guest.as_ref().is_none_or(|guest| guest.state != GuestState::PausedMigration) {
        ctx.ledger.forget_stop(of.server);
    }
    Some(facts)
}

pub(super) async fn not_started(ctx: &Context, seat: &Seat, revision: Option<Revision>, why: String) {
    warn!(why, "migration not started");
    let facts = look(ctx, seat.of).await;
    report(ctx, seat, revision, facts, None, Some(why)).await;
}

/// Sends the report. Without facts (the process ends) there is none: the next life's facts are asked for.
async fn report(
    ctx: &Context,
    seat: &Seat,
    revision: Option<Revision>,
    facts: Option<HostFacts>,
    result: Option<JobResult>,
    not_started: Option<String>,
) {
    let Some(facts) = facts else { return };
    let OfAttempt { migration, attempt, server } = seat.of;
    let report = MigrationReport { migration, attempt, server, revision, facts, result, not_started };
    reports::deliver(ctx, migration, ToConductor::Report(report), &seat.superseded).await;
}
