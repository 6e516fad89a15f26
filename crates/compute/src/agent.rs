//! The agent: takes messages from its queue, hands each to its handler, answers.
//!
//! Each message is handled on a task of its own. A call is acknowledged after its answer was sent, a cast when it was taken over in
//! memory: should the process die then, the row and the conductor's sweep bring it back. Only the control plane gives orders.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_common::bus::{Incoming, Sender};
use drover_common::fault::Fault;
use drover_common::rpc::latest::{OfAttempt, ToCompute};
use drover_common::telemetry;
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::{Instrument, debug, field, info_span, warn};

use crate::actor::Command;
use crate::context::Context;
use crate::migration::{carried, destination, discard, post, power, recover, rollback, source};
use crate::{announce, doctor, domains, facts, metrics, power as power_actions, prechecks, registration};

const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Works until the process is told to stop. Migrations under way go on in libvirt.
pub async fn serve(ctx: Arc<Context>, mut inbox: mpsc::Receiver<Incoming>) {
    metrics::begin();
    ctx.life.spawn(metrics::watch_libvirt(Arc::clone(&ctx)));
    ctx.life.spawn(registration::keep_registered(Arc::clone(&ctx)));
    ctx.life.spawn(domains::keep_reporting(Arc::clone(&ctx)));
    ctx.life.spawn(announce::keep_announcing(Arc::clone(&ctx)));
    loop {
        let incoming = tokio::select! {
            () = ctx.life.stop.cancelled() => break,
            incoming = inbox.recv() => incoming,
        };
        let Some(incoming) = incoming else { break };
        ctx.life.spawn(take(Arc::clone(&ctx), incoming));
    }
    ctx.probes.remove_all().await;
}

async fn take(ctx: Arc<Context>, incoming: Incoming) {
    if incoming.sender != Sender::Control {
        warn!(sender = ?incoming.sender, "order refused: only the control plane gives orders");
        let fault = Fault::unexpected("only the control plane gives orders to agents");
        return answer(&ctx, incoming, async { Err::<(), _>(fault) }).await;
    }
    let envelope = match incoming.decode::<ToCompute>() {
        Ok(envelope) => envelope,
        Err(fault) => {
            warn!(error = %fault, "message not understood");
            return answer(&ctx, incoming, async { Err::<(), _>(fault) }).await;
        }
    };
    let kind = envelope.message.name();
    let request = envelope.request_id.as_ref().map(ToString::to_string);
    let span = info_span!("message", kind, request.id = request, trace.id = field::Empty);
    telemetry::join(&span, envelope.traceparent.as_deref());
    let begin = Instant::now();
    tokio::select! {
        () = handle(&ctx, incoming, envelope.message).instrument(span) => {
            metrics::handled(kind, begin.elapsed());
            debug!(kind, took_ms = begin.elapsed().as_secs_f64() * 1e3, "message handled");
        }
        () = last_moment(&ctx) => debug!(kind, "message not finished: the agent ends"),
    }
}

/// What is under way when the process is told to stop gets a moment to finish; libvirt may keep it waiting much longer.
async fn last_moment(ctx: &Context) {
    ctx.life.stop.cancelled().await;
    tokio::time::sleep(LAST_MOMENT).await;
}

async fn handle(ctx: &Arc<Context>, incoming: Incoming, message: ToCompute) {
    match message {
        ToCompute::DescribeGuest(about) => answer(ctx, incoming, prechecks::describe::describe_guest(ctx, &about)).await,
        ToCompute::CheckCanLiveMigrateDestination(question) => {
            answer(ctx, incoming, prechecks::destination::check(ctx, &question)).await;
        }
        ToCompute::CheckCanLiveMigrateSource(question) => answer(ctx, incoming, prechecks::source::check(ctx, &question)).await,
        ToCompute::PreLiveMigration(order) => answer(ctx, incoming, destination::pre_live_migration(ctx, &order)).await,
        ToCompute::ReadImage(piece) => answer(ctx, incoming, carried::read_image(ctx, &piece)).await,
        ToCompute::WriteImage(order) => answer(ctx, incoming, destination::write_image(ctx, order)).await,
        ToCompute::LiveMigration(order) => {
            source::order(ctx, order);
            incoming.ack().await;
        }
        ToCompute::LiveMigrationAbort(of) => command(ctx, incoming, of, Command::Abort).await,
        ToCompute::LiveMigrationForceComplete(of) => command(ctx, incoming, of, Command::ForceComplete).await,
        ToCompute::LiveMigrationBandwidth(share) => {
            command(ctx, incoming, share.of, Command::Bandwidth(share.bandwidth_mib)).await;
        }
        ToCompute::RecoverPostCopy(order) => {
            recover::order(ctx, order);
            incoming.ack().await;
        }
        ToCompute::GetFacts(of) => answer(ctx, incoming, get_facts(ctx, of)).await,
        ToCompute::PostLiveMigrationAtDestination(order) => {
            answer(ctx, incoming, destination::post_live_migration(ctx, &order)).await;
        }
        ToCompute::ProbeStorage(order) => {
            answer(ctx, incoming, async { Ok(destination::probe_storage(ctx, &order).await) }).await;
        }
        ToCompute::ForgetProbes(about) => {
            ctx.probes.remove(about.migration).await;
            incoming.ack().await;
        }
        ToCompute::PostLiveMigration(order) => answer(ctx, incoming, post::post_live_migration(ctx, &order)).await,
        ToCompute::RollbackLiveMigrationAtDestination(order) => answer(ctx, incoming, rollback::rollback(ctx, &order)).await,
        ToCompute::ResumeGuest(of) => answer(ctx, incoming, power::resume_guest(ctx, of)).await,
        ToCompute::SuspendGuest(of) => answer(ctx, incoming, power::suspend_guest(ctx, of)).await,
        ToCompute::DiscardGuest(of) => answer(ctx, incoming, discard::discard_guest(ctx, of)).await,
        ToCompute::Power(order) => answer(ctx, incoming, power_actions::power(ctx, order)).await,
        ToCompute::Diagnose(question) => answer(ctx, incoming, doctor::diagnose(ctx, &question)).await,
        ToCompute::ReportDomains => {
            ctx.domains.request();
            incoming.ack().await;
        }
    }
}

async fn answer<R: Serialize>(ctx: &Context, incoming: Incoming, work: impl Future<Output = Result<R, Fault>>) {
    let begin = Instant::now();
    let result = work.await;
    debug!(took_ms = begin.elapsed().as_secs_f64() * 1e3, "answer ready");
    if let Err(fault) = &result {
        debug!(class = %fault.class, error = %fault, "answering with a fault");
    }
    ctx.bus.reply(incoming.reply_to().as_ref(), result).await;
    incoming.ack().await;
}

async fn command(ctx: &Context, incoming: Incoming, of: OfAttempt, command: Command) {
    if !ctx.actors.command(of, command) {
        debug!(migration.id = %of.migration, attempt = of.attempt.0, ?command, "no such migration under way");
    }
    incoming.ack().await;
}

async fn get_facts(ctx: &Context, of: OfAttempt) -> Result<drover_common::rpc::latest::HostFacts, Fault> {
    let facts = facts::host_facts(ctx, of).await;
    facts.map_err(|error| error.into_fault(&ctx.options.host, of.server, Fault::unexpected))
}
