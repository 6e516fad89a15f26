//! Driving: one row, under its lease, decision by decision, until there is nothing to do but wait.
//!
//! The lease belongs to the drive, not to the process, so one process does not drive a row twice either. It is renewed in the
//! background; when it is lost, the drive stops before its next side effect. A write that finds the row
//! changed (an agent was granted something meanwhile) is no error: the row is read anew and decided anew.

use std::sync::Arc;
use std::time::Duration;

use drover_common::ids::{Incarnation, MigrationId, Revision};
use drover_common::migration::JobResult;
use drover_common::rpc::latest::HostFacts;
use drover_common::telemetry;
use drover_store::StoreError;
use drover_store::migrations::{Migration, lease};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, field, info_span, warn};

use crate::consumer::Done;
use crate::recovery::plan::{Facts, Known, Next, View, plan};
use crate::{Conductor, metrics};

/// What a report brought along: spares a question, if the row is still the one that it speaks of.
pub(crate) struct News {
    /// The version of the row after which the source looked.
    pub revision: Option<Revision>,
    /// What it saw.
    pub source: HostFacts,
    /// What the destination sees, asked since.
    pub destination: Option<JoinHandle<Known>>,
    /// libvirt's account of the job.
    pub result: Option<JobResult>,
}

/// What an action came to.
pub(crate) enum Step {
    /// The row is now this.
    Row(Box<Migration>),
    /// The hosts said this.
    Facts(Facts),
    /// The row is no longer what it was: read it again.
    Changed,
    /// Nothing to do for so long.
    Wait(String, Duration),
    /// The migration is over.
    Closed,
}

impl Step {
    /// What a guarded write came to.
    pub(crate) fn written(row: Option<Migration>) -> Self {
        row.map_or(Self::Changed, |row| Self::Row(Box::new(row)))
    }
}

/// Drives that one conductor has at a time: each may wait for an agent for up to a minute. Rows beyond are left to the sweep.
pub(crate) const DRIVES_MAX: usize = 256;
/// A database that takes longer to renew a lease will not have it renewed in time.
const RENEW_WITHIN: Duration = Duration::from_secs(2);
/// After a failed database statement.
const AFTER_ERROR: Duration = Duration::from_secs(2);

impl Conductor {
    /// Takes the lease of a migration and drives it on a task of its own; done with the message as soon as the lease (or the count
    /// of events, when another conductor has the lease) is written.
    pub(crate) async fn start_drive(self: &Arc<Self>, id: MigrationId, news: Option<News>) -> Done {
        let Ok(place) = Arc::clone(&self.drives).try_acquire_owned() else {
            return self.leave_to_the_sweep(id).await;
        };
        let me = Incarnation::random();
        match self.take_lease(id, me).await {
            Ok(Some(row)) => {
                let span = info_span!(
                    parent: None,
                    "conductor.drive",
                    migration.id = %id,
                    server.id = %row.server,
                    request.id = %row.request_id,
                    trace.id = field::Empty
                );
                telemetry::join(&span, row.traceparent.as_deref());
                let conductor = Arc::clone(self);
                let drive = async move {
                    conductor.drive(row, me, news).await;
                    drop(place);
                };
                self.life.spawn(drive.instrument(span));
                Done::Yes
            }
            Ok(None) => {
                debug!(migration.id = %id, "closed, or driven already: the driver has been told");
                Done::Yes
            }
            Err(error) => Done::Again(error),
        }
    }

    async fn take_lease(&self, id: MigrationId, me: Incarnation) -> Result<Option<Migration>, StoreError> {
        lease::take(&mut *self.store.unsynced().await?, id, me).await
    }

    async fn leave_to_the_sweep(&self, id: MigrationId) -> Done {
        let note = async {
            let mut conn = self.store.connection().await?;
            lease::note(&mut conn, id).await
        };
        match note.await {
            Ok(()) => Done::Yes,
            Err(error) => Done::Again(error),
        }
    }

    /// Drives a row whose lease is ours until there is nothing to do but wait.
    async fn drive(self: Arc<Self>, row: Migration, me: Incarnation, news: Option<News>) {
        let id = row.id;
        let (lost, aborted) = (CancellationToken::new(), CancellationToken::new());
        let keeper = tokio::spawn(Arc::clone(&self).keep_lease(id, me, lost.clone(), aborted.clone()));
        tokio::select! {
            biased;
            () = lost.cancelled() => {
                metrics::lease_lost();
                warn!("lease lost: another conductor goes on");
            }
            () = Box::pin(self.decide_and_act(row, me, news, aborted)) => {}
        }
        keeper.abort();
    }

    /// Renews the lease. An abort that is asked for meanwhile is heard here, too: the drive itself may be waiting for an agent.
    async fn keep_lease(self: Arc<Self>, id: MigrationId, me: Incarnation, lost: CancellationToken, aborted: CancellationToken) {
        let mut last = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(lease::LEASE / 3).await;
            let renewed = async {
                let mut conn = self.store.connection().await?;
                lease::renew(&mut conn, id, me).await
            };
            match tokio::time::timeout(RENEW_WITHIN, renewed).await {
                Ok(Ok(Some(row))) => {
                    if row.abort_requested_by.is_some() {
                        aborted.cancel();
                    }
                    last = tokio::time::Instant::now();
                    continue;
                }
                Ok(Ok(None)) => break,
                Ok(Err(error)) => warn!(error = telemetry::chain(&error), migration.id = %id, "lease not renewed"),
                Err(_) => warn!(migration.id = %id, "lease not renewed: the database does not answer"),
            }
            if last.elapsed() >= lease::LEASE {
                break;
            }
        }
        lost.cancel();
    }

    async fn decide_and_act(
        self: &Arc<Self>,
        mut row: Migration,
        me: Incarnation,
        mut news: Option<News>,
        aborted: CancellationToken,
    ) {
        let mut facts = Facts::NONE;
        loop {
            if let Some(news) = news.take_if(|news| news.revision == Some(row.revision)) {
                facts.source = Known::Seen(news.source);
                if let Some(asked) = news.destination {
                    facts.destination = asked.await.unwrap_or(Known::NotAsked);
                }
                row.job_result = row.job_result.take().or(news.result);
            }
            let next = plan(&View::of(&row), &facts);
            debug!(status = %row.status, next = ?next, "decided");
            // Until the start nothing is lost by letting go of what an agent is asked: it bears being asked again, or never.
            let waits_for_agents = matches!(next, Next::Precheck | Next::PreLiveMigration) && row.abort_requested_by.is_none();
            let step = tokio::select! {
                biased;
                step = self.act(next, &row, &facts) => step,
                () = aborted.cancelled(), if waits_for_agents => Ok(Step::Changed),
            };
            let step = match step {
                Ok(step) => step,
                Err(error) => {
                    error!(error = telemetry::chain(&error), status = %row.status, "step failed; it is tried again");
                    Step::Wait(format!("{error}"), AFTER_ERROR)
                }
            };
            let revision = row.revision;
            match step {
                Step::Closed => return,
                Step::Facts(new) => facts = new,
                Step::Row(new) => row = *new,
                Step::Changed => match self.read_again(&row, me).await {
                    Some(new) => row = new,
                    None => return,
                },
                Step::Wait(why, look_again_in) => match self.let_go(&row, me, &why, look_again_in).await {
                    Some(new) => {
                        row = new;
                        facts = Facts::NONE;
                    }
                    None => return,
                },
            }
            if row.revision != revision {
                facts = Facts::NONE; // What was seen before a change proves nothing after it.
            }
        }
    }

    /// Reads the row under the lease; `None` if that is lost, the row is closed, or the database is away (the sweep comes back).
    async fn read_again(&self, row: &Migration, me: Incarnation) -> Option<Migration> {
        let read = async {
            let mut conn = self.store.connection().await?;
            lease::renew(&mut conn, row.id, me).await
        };
        match read.await {
            Ok(row) => row,
            Err(error) => {
                warn!(error = telemetry::chain(&error), "row not read; the sweep comes back to it");
                None
            }
        }
    }

    /// Lets go of the lease unless something came meanwhile: then the row as it is now.
    async fn let_go(&self, row: &Migration, me: Incarnation, why: &str, look_again_in: Duration) -> Option<Migration> {
        let release = async {
            // Not waiting for the disk: the source's grant, which is on its way, needs the row.
            let mut conn = self.store.unsynced().await?;
            let released = lease::release(&mut conn, row.id, me, row.wanted, look_again_in, Some(why)).await?;
            if released { Ok(None) } else { lease::renew(&mut conn, row.id, me).await }
        };
        let again: Result<Option<Migration>, StoreError> = release.await;
        again.unwrap_or_else(|error| {
            warn!(error = telemetry::chain(&error), "lease not released; it runs out by itself");
            None
        })
    }

    async fn act(self: &Arc<Self>, next: Next, row: &Migration, facts: &Facts) -> Result<Step, StoreError> {
        match next {
            Next::Precheck => self.precheck(row).await,
            Next::Cancel => self.cancel(row).await,
            Next::TryLeaveQueue => self.try_leave_queue(row).await,
            Next::PreLiveMigration => self.pre_live_migration(row).await,
            Next::Cast => self.cast_again(row).await,
            Next::RecoverPostCopy { pause } => self.recover_post_copy(row, facts, pause).await,
            Next::Ask { destination, ordered } => Ok(Step::Facts(self.ask(row, facts, destination, ordered).await)),
            Next::Wait { why, look_again_in, nudge } => {
                if let Some(nudge) = nudge {
                    self.nudge(row, nudge).await;
                }
                Ok(Step::Wait(why, look_again_in))
            }
            Next::RollBack { ending, why } => self.begin_roll_back(row, ending, &why).await,
            Next::SwitchOver => self.switch_over(row).await,
            Next::FinishPost => self.finish_post(row).await,
            Next::FinishRollBack { source, destination_answers } => self.finish_roll_back(row, source, destination_answers).await,
            Next::DestroyDestination => self.destroy_destination(row).await,
            Next::ResumeSource => self.resume_source(row).await,
            Next::Conflict { suspend } => self.conflict(row, suspend).await,
            Next::Discard { keep } => self.discard(row, keep).await,
            Next::Undecidable(why) => self.undecidable(row, &why).await,
            Next::GuestLost => self.guest_lost(row).await,
        }
    }
}
