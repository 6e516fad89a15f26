//! Drover's REST API: Nova's, as far as live migration and its clients need it.
//!
//! ```text
//! request ─▶ pipeline (id, panic, size, caller, mount) ─▶ router ─▶ microversion ─▶ handler
//!            handler: take apart, authorise, call `app` or read through `drover_store`, show
//!            app:     one transaction, then what it promised to send
//! ```
//!
//! - Nothing here decides about a migration: the API makes a request durable and tells what the record says.
//! - All SQL is in `drover_store`; every read takes a fixed number of queries, however long the list.
//! - What Nova answers is described in `docs/api.md`, and where we differ from it on purpose.
//!
//! *Adding a resource:* a file with its handlers, views and schemas, its lines in [`router`], its rules in `policy`.

mod aggregates;
mod app;
mod auth;
mod availability_zones;
mod context;
mod error;
mod extension;
mod extensions;
mod extract;
mod flavors;
mod health;
mod hypervisors;
mod instance_actions;
mod keypairs;
mod limits;
mod links;
mod metrics;
mod microversion;
mod migration_view;
mod migrations;
mod openapi;
mod pipeline;
mod policy;
mod router;
mod server_groups;
mod server_migrations;
mod servers;
mod services;
mod stamp;
mod state;
mod time;
mod tls;
mod validation;
mod versions;

use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::ListenerExt;
use drover_common::bus::{self, Address, Incoming};
use drover_common::config::{Config, ConfigError};
use drover_common::ids::Incarnation;
use drover_common::lifecycle::Life;
use drover_common::telemetry;
use drover_store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub use metrics::look_at_database;
pub use router::router;
pub use state::AppState;

use tls::{Certificate, TlsListener};

/// Why the process cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something in the configuration that shows only when it is used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database's address is none.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else listens there, or the address is not ours.
    #[error("cannot listen on {address} ([api] osapi_compute_listen, osapi_compute_listen_port)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The listener broke.
    #[error("the listener failed")]
    Serve(#[source] std::io::Error),
}

/// Runs the API until the process is told to stop. Database and broker need not be there yet.
pub async fn run(config: Config, life: Life) -> Result<(), RunError> {
    let store = Store::open(&config.database)?;
    let own = Address::ApiProcess(Incarnation::random());
    let (bus, inbox) = bus::amqp::start(&config, own)?;
    let app = AppState::new(&config, store.clone(), bus, life.clone())?;
    serve_inbox(&app, inbox);

    let certificate = Certificate::configured(&config.wsgi)?;
    let address = SocketAddr::new(config.api.osapi_compute_listen, config.api.osapi_compute_listen_port);
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    tracing::info!(%address, tls = certificate.is_some(), "listening");
    let listener = listener.tap_io(|stream| {
        stream.set_nodelay(true).ok(); // Answers are small; waiting to send more of one costs up to 40 ms.
    });
    life.spawn(metrics::watch_database(store.clone(), life.stop.clone()));
    tokio::spawn(ready_with_database(store, life.clone()));
    let (routes, stop) = (router(&app), life.stop.clone().cancelled_owned());
    let served = match certificate {
        Some(certificate) => {
            let listener = TlsListener::new(listener, certificate)?;
            axum::serve(listener, routes).with_graceful_shutdown(stop).await
        }
        None => axum::serve(listener, routes).with_graceful_shutdown(stop).await,
    };
    served.map_err(RunError::Serve)
}

/// Starts taking the messages to this process: word of migrations that a request waits for.
pub fn serve_inbox(app: &AppState, inbox: mpsc::Receiver<Incoming>) {
    app.life().spawn(app::prechecks::serve(app.clone(), inbox));
}

/// Says that the process is ready once the database has answered.
async fn ready_with_database(store: Store, life: Life) {
    const PAUSE: Duration = Duration::from_millis(500);
    while !life.stop.is_cancelled() {
        match store.ping().await {
            Ok(()) => return life.ready(),
            Err(error) => tracing::warn!(error = telemetry::chain(&error), "waiting for the database"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
