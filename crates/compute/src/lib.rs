//! The compute agent: one per host, the only process that talks to libvirt.
//!
//! ```text
//! RabbitMQ ── compute.<host> ──▶ agent ──▶ prechecks   describe, check destination, check source
//!                                      ├─▶ migration   pre, start, watch, post, roll back       ──▶ driver ──▶ libvirt
//!                                      └─▶ facts       what is there, what was done
//!          ◀── conductor ── registration, domains, reports, grants
//! ```
//!
//! It keeps nothing on disk and touches no database. It may be killed at any moment: a migration goes on in libvirt, and
//! [`resume`] takes it up again. Before what cannot be taken back it asks for leave ([`grants`]).

pub mod actor;
pub mod agent;
pub mod announce;
pub mod arrivals;
pub mod config;
pub mod context;
pub mod doctor;
pub mod domain_xml;
pub mod domains;
pub mod driver;
pub mod facts;
pub mod flags;
pub mod grants;
pub mod inventory;
pub mod ledger;
pub mod lock;
pub mod metrics;
pub mod migration;
pub mod power;
pub mod prechecks;
pub mod registration;
pub mod reports;
pub mod resume;
pub mod storage;
pub mod stream;

use std::sync::Arc;

use drover_common::bus::{Address, amqp};
use drover_common::config::{Config, ConfigError};
use drover_common::lifecycle::Life;

use crate::config::Options;
use crate::context::Context;
use crate::driver::DriverError;
use crate::driver::libvirt::Libvirt;
use crate::lock::{HostLock, LockError};

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// An option is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is one already.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// libvirt's library does not work.
    #[error("libvirt's library cannot be used")]
    Library(#[source] DriverError),
}

/// Runs the agent until it is told to stop.
pub async fn run(config: Config, life: Life) -> Result<(), AgentError> {
    let options = Options::new(&config)?;
    let _lock = HostLock::take(&options.host)?;
    let driver = Libvirt::start(&options.connection_uri, life.stop.clone()).map_err(AgentError::Library)?;
    let (bus, inbox) = amqp::start(&config, Address::Compute(options.host.clone()))?;
    let ctx = Context::new(options, Arc::new(driver), bus, life);
    agent::serve(ctx, inbox).await;
    Ok(())
}
