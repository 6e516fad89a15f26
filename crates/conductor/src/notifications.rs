//! Nova's versioned notifications about live migrations (`nova/notifications/`), for whoever listens on the broker.
//!
//! Best effort, as in Nova: one task sends them in their order, a full queue or an absent broker drops them, and no step of a
//! migration waits for any. All of them come from the conductor, which sees every step; `publisher_id` names the host whose step it
//! is. An event that is told once goes with an edge of the row, or with the answer of a host.

mod payload;

use std::sync::Arc;
use std::time::Duration;

use drover_common::bus::{Bus, Priority};
use drover_common::fault::Fault;
use drover_common::ids::{HostName, ServerId};
use drover_common::telemetry;
use drover_store::migrations::Migration;
use drover_store::{Store, StoreError, servers};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::Conductor;

/// Notifications that wait to be sent; beyond it they are dropped.
const QUEUE: usize = 1024;
/// For how long a broker may keep one from being sent.
const SENT_WITHIN: Duration = Duration::from_secs(5);

/// A step of `instance.live_migration_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Pre,
    Post,
    PostDest,
    Abort,
    ForceComplete,
    Rollback,
    RollbackDest,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Pre => "live_migration_pre",
            Self::Post => "live_migration_post",
            Self::PostDest => "live_migration_post_dest",
            Self::Abort => "live_migration_abort",
            Self::ForceComplete => "live_migration_force_complete",
            Self::Rollback => "live_migration_rollback",
            Self::RollbackDest => "live_migration_rollback_dest",
        }
    }
}

/// What happened.
#[derive(Debug, Clone)]
enum Happened {
    /// A step of a migration on a host: it began, or it ended.
    Step { step: Step, phase: &'static str },
    /// The scheduler begins to look for a host, or has found one.
    SelectDestinations { phase: &'static str },
    /// `migrate_server` failed in its prechecks.
    TaskFailed { fault: Fault },
}

/// One notification that waits.
#[derive(Debug, Clone)]
struct Note {
    happened: Happened,
    publisher: String,
    server: ServerId,
    request_id: String,
    initiator: (String, String),
}

/// Where steps leave their notifications; does nothing when they are switched off.
#[derive(Default)]
pub(crate) struct Notifier {
    queue: Option<mpsc::Sender<Note>>,
}

impl Notifier {
    /// Starts the task that sends.
    pub(crate) fn start(store: Store, bus: Bus) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Note>(QUEUE);
        tokio::spawn(async move {
            while let Some(note) = waiting.recv().await {
                match tokio::time::timeout(SENT_WITHIN, send(&store, &bus, &note)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => debug!(server.id = %note.server, why, "notification not sent"),
                    Err(_) => debug!(server.id = %note.server, "notification not sent: the broker does not take it"),
                }
            }
        });
        Self { queue: Some(queue) }
    }

    fn put(&self, note: impl FnOnce() -> Note) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(note()).is_err() {
            warn!("notification dropped: too many wait");
        }
    }
}

async fn send(store: &Store, bus: &Bus, note: &Note) -> Result<(), String> {
    let of_store = |error: StoreError| telemetry::chain(&error);
    let mut conn = store.connection().await.map_err(of_store)?;
    let server = servers::get(&mut conn, note.server).await.map_err(of_store)?.ok_or("the server is gone")?;
    let now = drover_store::now(&mut conn).await.map_err(of_store)?;
    drop(conn);
    let (priority, body) = payload::message(note, &server, now);
    bus.notify(priority, &body).await.map_err(|error| error.to_string())
}

impl Conductor {
    /// Tells that a step began on `host`.
    pub(crate) fn notify_start(self: &Arc<Self>, row: &Migration, step: Step, host: &HostName) {
        self.notify_step(row, step, "start", host);
    }

    /// Tells that it ended.
    pub(crate) fn notify_end(self: &Arc<Self>, row: &Migration, step: Step, host: &HostName) {
        self.notify_step(row, step, "end", host);
    }

    fn notify_step(self: &Arc<Self>, row: &Migration, step: Step, phase: &'static str, host: &HostName) {
        self.notifier.put(|| note(row, Happened::Step { step, phase }, format!("nova-compute:{host}")));
    }

    /// Tells that the scheduler begins to look for hosts ("start"), or that at least one passes its filters ("end").
    pub(crate) fn notify_selection(self: &Arc<Self>, row: &Migration, phase: &'static str) {
        let publisher = format!("nova-scheduler:{}", self.settings.host);
        self.notifier.put(|| note(row, Happened::SelectDestinations { phase }, publisher));
    }

    /// Tells that a migration was refused.
    pub(crate) fn notify_refused(self: &Arc<Self>, row: &Migration, fault: &Fault) {
        let publisher = format!("nova-conductor:{}", self.settings.host);
        self.notifier.put(|| note(row, Happened::TaskFailed { fault: fault.clone() }, publisher));
    }
}

fn note(row: &Migration, happened: Happened, publisher: String) -> Note {
    Note {
        happened,
        publisher,
        server: row.server,
        request_id: row.request_id.to_string(),
        initiator: (row.user_id.clone(), row.project_id.clone()),
    }
}

/// The priority of what happened.
const fn priority_of(happened: &Happened) -> Priority {
    match happened {
        Happened::Step { .. } | Happened::SelectDestinations { .. } => Priority::Info,
        Happened::TaskFailed { .. } => Priority::Error,
    }
}
