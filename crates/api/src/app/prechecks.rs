//! Waiting for a migration's prechecks, for callers below microversion 2.34.
//!
//! What ends the wait is the *row* leaving the precheck states, whoever moved it: the conductor's word ([`ToApi`]) only wakes the
//! waiter, and a look every second is the net below it. So the wait survives the loss of a message, of a conductor, and of the
//! broker. Dropping the wait (the client went away) changes nothing of the migration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_common::bus::Incoming;
use drover_common::fault::Fault;
use drover_common::ids::MigrationId;
use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::ToApi;
use drover_common::telemetry;
use drover_store::StoreError;
use drover_store::migrations::{self, Migration};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::error::ApiError;
use crate::state::AppState;

/// How often the row is read although nobody said anything.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest wait (Nova's `long_rpc_timeout`).
const LONGEST: Duration = Duration::from_mins(30);

/// The requests that wait, by migration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiters(Arc<Mutex<HashMap<MigrationId, Arc<Notify>>>>);

impl Waiters {
    /// Says that somebody will wait for this migration. To be called before the migration is committed: then no word can be missed.
    pub(crate) fn expect(&self, migration: MigrationId) -> Expected {
        let wake = Arc::new(Notify::new());
        self.lock().insert(migration, wake.clone());
        Expected { migration, wake, waiters: self.clone() }
    }

    /// Wakes whoever waits for this migration.
    fn wake(&self, migration: MigrationId) {
        if let Some(wake) = self.lock().get(&migration) {
            wake.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MigrationId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait that was announced; forgotten when dropped.
#[derive(Debug)]
pub(crate) struct Expected {
    migration: MigrationId,
    wake: Arc<Notify>,
    waiters: Waiters,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.waiters.lock().remove(&self.migration);
    }
}

/// Takes the messages to this process, until the bus ends.
pub(crate) async fn serve(app: AppState, mut inbox: mpsc::Receiver<Incoming>) {
    let stop = app.life().stop.clone();
    loop {
        let incoming = tokio::select! {
            incoming = inbox.recv() => incoming,
            () = stop.cancelled() => None,
        };
        let Some(incoming) = incoming else { return };
        match incoming.decode::<ToApi>() {
            Ok(envelope) => match envelope.message {
                ToApi::MigrationMoved { migration } => app.waiters().wake(migration),
            },
            Err(fault) => warn!(error = %fault, "message refused"),
        }
        incoming.ack().await;
    }
}

/// Waits until the prechecks are over. `Ok`: they passed, or nobody can tell any more that they did not.
pub(crate) async fn passed(app: &AppState, expected: Expected) -> Result<Result<(), Fault>, ApiError> {
    let stop = app.life().stop.clone();
    let until = Instant::now() + LONGEST;
    loop {
        tokio::select! {
            () = expected.wake.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {
                let text = format!("The API is being stopped; migration {} goes on.", expected.migration);
                return Err(ApiError::Unavailable(text));
            }
        }
        match read(app, expected.migration).await {
            Ok(Some(migration)) if migration.status.is_precheck() => {}
            Ok(Some(migration)) => return Ok(verdict(migration)),
            Ok(None) => return Ok(Err(Fault::unexpected("the migration's record is gone"))),
            // The database will be back, and so will the answer.
            Err(error) => debug!(error = telemetry::chain(&error), "cannot read the migration that a caller waits for"),
        }
        if Instant::now() >= until {
            return Ok(Err(Fault::unexpected(format_args!(
                "Timed out after {} s of waiting for the prechecks of migration {}, which goes on.",
                LONGEST.as_secs(),
                expected.migration
            ))));
        }
    }
}

async fn read(app: &AppState, id: MigrationId) -> Result<Option<Migration>, StoreError> {
    let mut conn = app.store().connection().await?;
    migrations::get(&mut conn, id).await
}

/// What a migration that left the prechecks says of them. Whatever began after them is not theirs.
fn verdict(migration: Migration) -> Result<(), Fault> {
    let began = migration.claimed_at.is_some();
    match (migration.status, migration.fault) {
        (MigrationStatus::Error, Some(fault)) => Err(fault),
        (MigrationStatus::Error, None) => Err(Fault::unexpected("the migration ended in error and nobody said why")),
        (MigrationStatus::Cancelled, fault) if !began => Err(fault.unwrap_or_else(|| Fault::aborted("request"))),
        _ => Ok(()),
    }
}
