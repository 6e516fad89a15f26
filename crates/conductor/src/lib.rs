//! The conductor: leads every migration from its request to its end. Any number of them side by side.
//!
//! Nothing here is remembered: the rows in PostgreSQL say what is wanted, the hosts' agents what is. An event (a message, a report,
//! a slot that got free) makes a conductor [`drive`] the row it is about; the [`recovery::sweep`] finds rows that no event came for.
//! Driving is [`recovery::plan`] in a loop: decide, act, read again.
//!
//! | module | does |
//! | --- | --- |
//! | [`consumer`] | takes messages, acknowledges them when forgetting them is safe |
//! | [`dispatch`] | live, cold or neither |
//! | [`drive`] | one row, under its lease |
//! | [`tasks`] | the steps: `LiveMigrationTask` and what comes after it |
//! | [`scheduler`] | filters and weighers, pure |
//! | [`queue`], [`bandwidth`] | who goes next; the links shared among those under way |
//! | [`grants`] | leave for what cannot be taken back |
//! | [`power`] | pause, start, stop, reboot, delete |
//! | [`reports`] | what agents say of a copy |
//! | [`hosts`], [`adoption`] | what agents say of their hosts and domains |
//! | [`diagnosis`] | what agents say of their hosts when `drover doctor` asks |
//! | [`metrics`] | what is counted, and the fleet in numbers |
//! | [`notifications`] | Nova's versioned notifications, best effort |
//! | [`sweeps`] | timers: outbox, heartbeats, debts, rows without a driver |

mod adoption;
mod agents;
mod bandwidth;
mod consumer;
mod debts;
mod diagnosis;
mod dispatch;
mod drive;
mod grants;
mod hosts;
mod metrics;
mod notifications;
mod outbox_publisher;
mod power;
mod queue;
pub mod recovery;
mod reports;
pub mod scheduler;
mod settings;
mod sweeps;
mod tasks;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use drover_common::bus::{self, Address, Bus};
use drover_common::config::{Config, ConfigError};
use drover_common::ids::Incarnation;
use drover_common::lifecycle::Life;
use drover_store::{Store, StoreError};
use tokio::sync::{Semaphore, mpsc};

use crate::agents::Agents;
use crate::hosts::Heartbeats;
use crate::notifications::Notifier;
pub use crate::settings::Settings;

/// Why a conductor cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConductorError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its database, at the start.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One conductor.
pub struct Conductor {
    store: Store,
    bus: Bus,
    agents: Agents,
    settings: Settings,
    heartbeats: Heartbeats,
    notifier: Notifier,
    drives: Arc<Semaphore>,
    power_drives: Arc<Semaphore>,
    me: Incarnation,
    life: Life,
}

impl Conductor {
    /// Puts one together; [`Conductor::serve`] sets it to work.
    pub fn new(store: Store, bus: Bus, settings: Settings, me: Incarnation, life: Life) -> Arc<Self> {
        let notifier = if settings.notifications { Notifier::start(store.clone(), bus.clone()) } else { Notifier::default() };
        Arc::new(Self {
            agents: Agents::new(bus.clone()),
            store,
            bus,
            settings,
            heartbeats: Heartbeats::default(),
            notifier,
            drives: Arc::new(Semaphore::new(drive::DRIVES_MAX)),
            power_drives: Arc::new(Semaphore::new(power::DRIVES_MAX)),
            me,
            life,
        })
    }

    /// Takes messages and sweeps, until it is told to stop.
    pub async fn serve(self: &Arc<Self>, inbox: mpsc::Receiver<bus::Incoming>) {
        metrics::begin(&self.settings.limits);
        self.sweep_all();
        self.life.ready();
        Arc::clone(self).consume(inbox).await;
    }
}

/// The process: connects to database and broker and serves.
pub async fn run(config: Config, life: Life) -> Result<(), ConductorError> {
    let settings = Settings::new(&config)?;
    let store = Store::open_with_fixed_plans(&config.database)?;
    let me = Incarnation::random();
    let (bus, inbox) = bus::amqp::start(&config, Address::ConductorProcess(me))?;
    let conductor = Conductor::new(store, bus, settings, me, life);
    tokio::select! {
        () = conductor.introduce() => conductor.serve(inbox).await,
        () = conductor.life.stop.cancelled() => {}
    }
    Ok(())
}
