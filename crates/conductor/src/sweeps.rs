//! Timers: what no event comes for. Each sweep compares what is with what should be; missing one changes nothing.

use std::sync::Arc;
use std::time::Duration;

use drover_common::telemetry;
use drover_store::{StoreError, services};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::{Conductor, metrics};

/// Heartbeats are collected this long: one statement for all hosts.
const HEARTBEAT_BATCH: Duration = Duration::from_secs(1);
/// Debts of hosts that answer but could not pay at their return.
const DEBTS: Duration = Duration::from_mins(1);

impl Conductor {
    /// Waits until the database has our schema and knows us.
    pub(crate) async fn introduce(&self) {
        loop {
            match self.say_that_we_are_here().await {
                Ok(()) => return info!(conductor.life = %self.me, "known in the database"),
                Err(error) => {
                    warn!(
                        error = telemetry::chain(&error),
                        "database not ready (`drover db migrate` makes the schema); tried again"
                    );
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn say_that_we_are_here(&self) -> Result<(), StoreError> {
        let mut conn = self.store.connection().await?;
        services::seen(&mut conn, &self.settings.host, services::CONDUCTOR).await.map(drop)
    }

    /// Runs all timers until the process is told to stop, each on a task of its own: a slow one keeps no other back.
    pub(crate) fn sweep_all(self: &Arc<Self>) {
        let conductor = Arc::clone(self);
        self.life.spawn(async move {
            let mut connections = conductor.bus.connections();
            let mut timer = every(conductor.settings.sweep_interval);
            loop {
                tokio::select! {
                    () = conductor.life.stop.cancelled() => return,
                    _ = timer.tick() => {}
                    Ok(()) = connections.changed() => {} // The broker is back: whatever waited for it goes on.
                }
                conductor.sweep_rows().await;
                logged("power actions", conductor.sweep_power().await);
                logged("outbox", conductor.publish_left_over().await);
            }
        });
        self.at_intervals(HEARTBEAT_BATCH, |conductor| async move { logged("heartbeats", conductor.write_heartbeats().await) });
        self.at_intervals(self.settings.report_interval, |conductor| async move {
            logged("own heartbeat", conductor.say_that_we_are_here().await);
        });
        self.at_intervals(metrics::FLEET_EVERY, |conductor| async move {
            logged("metrics", conductor.look_at_the_fleet().await);
        });
        self.at_intervals(DEBTS, |conductor| async move { conductor.pay_debts(None).await });
    }

    fn at_intervals<F: Future<Output = ()> + Send>(
        self: &Arc<Self>,
        period: Duration,
        work: impl Fn(Arc<Self>) -> F + Send + 'static,
    ) {
        let conductor = Arc::clone(self);
        self.life.spawn(async move {
            let mut timer = every(period);
            loop {
                tokio::select! {
                    () = conductor.life.stop.cancelled() => return,
                    _ = timer.tick() => work(Arc::clone(&conductor)).await,
                }
            }
        });
    }
}

fn every(period: Duration) -> Interval {
    let mut timer = interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

fn logged<T>(what: &str, result: Result<T, StoreError>) {
    if let Err(error) = result {
        warn!(error = telemetry::chain(&error), "{what}: the next sweep tries again");
    }
}
