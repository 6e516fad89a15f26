//! Introducing this host to the conductors, and staying known.
//!
//! At the start and after each new connection, to the broker or to libvirt: what the host is, what domains it has; the answer says
//! which migrations to watch. In between heartbeats, and the introduction again when what the host has has changed.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use drover_common::bus::{Address, CallError};
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{HostUp, HostWelcome, ToConductor};
use drover_common::telemetry;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, info, warn};

use crate::context::Context;
use crate::driver::{Connection, DriverError};
use crate::inventory;
use crate::resume;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// After a refusal only an operator can help; it is asked again for the day when one did.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// How long a conductor has to answer: it writes what the host has.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const INVENTORY_INTERVAL: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
enum NotRegistered {
    #[error("libvirt cannot be asked what the host has")]
    Hypervisor(#[source] DriverError),
    #[error("the conductor refuses this host")]
    Refused(#[source] drover_common::fault::Fault),
    #[error("no conductor answers")]
    NoAnswer(#[source] CallError),
}

/// Keeps this host registered until the process is told to stop. The process is ready after the first time.
pub async fn keep_registered(ctx: Arc<Context>) {
    let stop = ctx.life.stop.clone();
    stop.run_until_cancelled(keep(&ctx)).await;
}

async fn keep(ctx: &Arc<Context>) {
    let mut broker = ctx.bus.connections();
    let mut hypervisor = ctx.driver.connection();
    let mut is_ready = false;
    loop {
        register_until_done(ctx, &mut broker, &mut hypervisor).await;
        if !is_ready {
            ctx.life.ready();
            is_ready = true;
        }
        let mut heartbeat = tokio::time::interval(ctx.options.report_interval);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = tokio::time::interval(INVENTORY_INTERVAL);
        look.tick().await; // It was read just now.
        loop {
            tokio::select! {
                _ = broker.changed() => break,
                _ = hypervisor.changed() => if hypervisor.borrow_and_update().up { break },
                _ = heartbeat.tick() => send_heartbeat(ctx).await,
                _ = look.tick() => if inventory_changed(ctx).await { break },
            }
        }
    }
}

/// Tries until it is done. Afterwards the receivers have seen exactly the connections over which it was done: a newer one shows.
async fn register_until_done(ctx: &Arc<Context>, broker: &mut watch::Receiver<u64>, hypervisor: &mut watch::Receiver<Connection>) {
    let builder = ExponentialBuilder::default().with_min_delay(PAUSE_MIN).with_max_delay(PAUSE_MAX);
    let mut pauses = builder.with_jitter().without_max_times().build();
    loop {
        hypervisor.wait_for(|connection| connection.up).await.ok();
        broker.wait_for(|connections| *connections > 0).await.ok();
        hypervisor.mark_unchanged();
        broker.mark_unchanged();
        let pause = match register(ctx).await {
            Ok(welcome) => {
                info!(host = %ctx.options.host, watch = welcome.watch.len(), "registered with the conductor");
                return resume::take_up(ctx, &welcome.watch);
            }
            Err(refused @ NotRegistered::Refused(_)) => {
                error!(error = telemetry::chain(&refused), host = %ctx.options.host, "not registered");
                REFUSED_PAUSE
            }
            Err(error) => {
                warn!(error = telemetry::chain(&error), host = %ctx.options.host, "not registered yet");
                pauses.next().unwrap_or(PAUSE_MAX)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = broker.changed() => {}
        }
    }
}

async fn register(ctx: &Context) -> Result<HostWelcome, NotRegistered> {
    let (inventory, domains) = tokio::join!(inventory::read(ctx), ctx.domains.complete(ctx));
    let inventory = inventory.map_err(NotRegistered::Hypervisor)?;
    ctx.set_inventory(&inventory);
    let up = HostUp { incarnation: ctx.incarnation, inventory, domains: domains.map_err(NotRegistered::Hypervisor)? };
    let question = Envelope::new(ToConductor::HostUp(up));
    match ctx.bus.call(&Address::Conductor, &question, ANSWER_WITHIN).await {
        Ok(welcome) => Ok(welcome),
        Err(CallError::Fault(fault)) => Err(NotRegistered::Refused(fault)),
        Err(error) => Err(NotRegistered::NoAnswer(error)),
    }
}

/// A heartbeat is worth nothing once the next one is due.
async fn send_heartbeat(ctx: &Context) {
    let heartbeat = Envelope::new(ToConductor::Heartbeat { incarnation: ctx.incarnation });
    let sent = ctx.bus.cast_transient(&Address::Conductor, &heartbeat, ctx.options.report_interval).await;
    if let Err(error) = sent {
        debug!(error = %error, "heartbeat not sent");
    }
}

async fn inventory_changed(ctx: &Context) -> bool {
    match inventory::read(ctx).await {
        Ok(inventory) => ctx.set_inventory(&inventory),
        Err(error) => {
            debug!(error = %error, "inventory not read");
            false
        }
    }
}
