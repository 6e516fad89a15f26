//! Timers: what no event comes for. Each sweep compares what is with what should be; missing one changes nothing.

use std::sync::Arc;
use std::time::Duration;

use drover_common::telemetry;
use drover_store::{StoreError, services};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::Conductor;

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

    /// Runs all timers until the process is told to stop.
    pub(crate) async fn sweep_all(self: Arc<Self>) {
        let every = |period| {
            let mut timer = interval(period);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        };
        let (mut rows, mut heartbeats, mut own, mut debts) =
            (every(self.settings.sweep_interval), every(HEARTBEAT_BATCH), every(self.settings.report_interval), every(DEBTS));
        let mut connections = self.bus.connections();
        loop {
            tokio::select! {
                () = self.life.stop.cancelled() => return,
                _ = rows.tick() => self.sweep_rows_and_outbox().await,
                // The broker is back: whatever waited for it goes on.
                Ok(()) = connections.changed() => self.sweep_rows_and_outbox().await,
                _ = heartbeats.tick() => logged("heartbeats", self.write_heartbeats().await),
                _ = own.tick() => logged("own heartbeat", self.say_that_we_are_here().await),
                _ = debts.tick() => self.pay_debts(None).await,
            }
        }
    }
}

impl Conductor {
    async fn sweep_rows_and_outbox(self: &Arc<Self>) {
        self.sweep_rows().await;
        logged("outbox", self.publish_left_over().await);
    }
}

fn logged<T>(what: &str, result: Result<T, StoreError>) {
    if let Err(error) = result {
        warn!(error = telemetry::chain(&error), "{what}: the next sweep tries again");
    }
}
