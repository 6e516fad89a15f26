//! What every handler can reach.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drover_common::bus::Bus;
use drover_common::config::{ApiSection, Config, ConfigError};
use drover_common::lifecycle::Life;
use drover_store::Store;

use crate::app::prechecks::Waiters;
use crate::auth::Authenticator;
use crate::policy::Policy;

/// The process's means. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Means>);

struct Means {
    store: Store,
    bus: Bus,
    life: Life,
    config: ApiSection,
    scheme: &'static str,
    service_down_time: Duration,
    default_availability_zone: String,
    authenticator: Authenticator,
    policy: Policy,
    waiters: Waiters,
    certificates: Vec<PathBuf>,
}

impl AppState {
    /// Over this database and this bus. An error if callers could not be authenticated and judged as it is configured.
    pub fn new(config: &Config, store: Store, bus: Bus, life: Life) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(Means {
            store,
            bus,
            life,
            config: config.api.clone(),
            scheme: if config.wsgi.ssl_cert_file.is_some() { "https" } else { "http" },
            service_down_time: Duration::from_secs(config.default.service_down_time),
            default_availability_zone: config.default.default_availability_zone.clone(),
            authenticator: Authenticator::new(config)?,
            policy: Policy::load(&config.oslo_policy)?,
            waiters: Waiters::default(),
            certificates: [&config.wsgi.ssl_cert_file, &config.oslo_messaging_rabbit.ssl_cert_file]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        })))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.0.bus
    }

    pub(crate) fn life(&self) -> &Life {
        &self.0.life
    }

    pub(crate) fn config(&self) -> &ApiSection {
        &self.0.config
    }

    /// How callers reach us, if there is no proxy that makes it differ.
    pub(crate) fn scheme(&self) -> &'static str {
        self.0.scheme
    }

    /// How long a service may be silent before it counts as down.
    pub(crate) fn service_down_time(&self) -> Duration {
        self.0.service_down_time
    }

    /// Of hosts that no aggregate puts into another.
    pub(crate) fn default_availability_zone(&self) -> &str {
        &self.0.default_availability_zone
    }

    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.0.authenticator
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// The files of the certificates that we use.
    pub(crate) fn certificates(&self) -> &[PathBuf] {
        &self.0.certificates
    }

    /// The requests that wait for a migration's prechecks.
    pub(crate) fn waiters(&self) -> &Waiters {
        &self.0.waiters
    }
}
