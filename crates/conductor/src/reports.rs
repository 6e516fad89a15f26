//! What agents say of a copy: samples of progress, and that something happened to an attempt.

use std::sync::Arc;
use std::time::Duration;

use drover_common::ids::HostName;
use drover_common::rpc::latest::{CallState, DecisionReport, MigrationReport, ProgressReport};
use drover_common::telemetry;
use drover_store::migrations::{Migration, steps};
use drover_store::{StoreError, migrations, servers};
use tokio::task::JoinHandle;
use tracing::{Instrument, debug, info, warn};

use crate::Conductor;
use crate::consumer::{Done, takes_part};
use crate::drive::News;
use crate::recovery::plan::Known;
use crate::tasks::live_migration::start::of_attempt;

/// Without a sample for this long, both hosts are asked.
const SILENT_FOR: Duration = Duration::from_secs(20);

impl Conductor {
    /// A sample of a running copy. Lossy: the next one comes.
    pub(crate) async fn progress(&self, host: &HostName, report: &ProgressReport) -> Done {
        let write = async {
            let mut conn = self.store.unsynced().await?;
            let (of, progress) = (&report.of, &report.progress);
            let of_row = migrations::record_progress(&mut conn, of.migration, of.attempt, host, progress, SILENT_FOR).await?;
            match of_row {
                Some(server) => servers::set_progress(&mut conn, server, progress.percent()).await,
                None => Ok(()),
            }
        };
        if let Err(error) = write.await {
            debug!(error = telemetry::chain(&error), "sample not written");
        }
        Done::Yes
    }

    /// Decisions about a copy: lines on the migration, and no more.
    pub(crate) async fn decided(&self, host: &HostName, report: DecisionReport) -> Done {
        let DecisionReport { of, decision, more } = report;
        let mut decisions = vec![decision];
        decisions.extend(more);
        let write = async {
            let mut conn = self.store.connection().await?;
            steps::decided(&mut conn, of.migration, of.attempt, host, &decisions).await
        };
        match write.await {
            Ok(()) => Done::Yes,
            Err(error) => Done::Again(error),
        }
    }

    /// Something happened to an attempt: the row is driven on, with what the source saw, if nobody changed the row since.
    pub(crate) async fn report(self: &Arc<Self>, host: &HostName, report: MigrationReport) -> Done {
        let id = report.migration;
        let about = async {
            let mut conn = self.store.connection().await?;
            let row = migrations::get(&mut conn, id).await?;
            Ok::<_, StoreError>(row.filter(|row| row.source == *host && takes_part(row, host)))
        };
        let row = match about.await {
            Ok(Some(row)) if row.attempt == report.attempt => row,
            Ok(_) => {
                debug!(migration.id = %id, host = %host, attempt = %report.attempt, "report of a closed or earlier attempt");
                return Done::Yes;
            }
            Err(error) => return Done::Again(error),
        };
        if let Some(why) = &report.not_started {
            warn!(migration.id = %row.id, host = %host, why, "the source did not start");
        } else {
            info!(migration.id = %row.id, host = %host, call = ?report.facts.call, "the source reports");
        }
        let news = News {
            revision: report.revision,
            source: report.facts.clone(),
            destination: self.ask_ahead(&row, &report),
            result: report.result.clone(),
        };
        match self.start_drive(id, Some(news)).await {
            Done::Yes => self.keep_result(&report).await,
            again @ Done::Again(_) => again,
        }
    }

    /// Whoever drives the row on will want to know what the destination sees of a guest that has left: asked while the lease is
    /// taken, if nobody wrote the row since the report was made.
    fn ask_ahead(self: &Arc<Self>, row: &Migration, report: &MigrationReport) -> Option<JoinHandle<Known>> {
        let has_left = matches!(report.facts.call, CallState::Ended { error: None, .. });
        let host = row.destination.clone().filter(|_| has_left && report.revision == Some(row.revision))?;
        let (conductor, of) = (Arc::clone(self), of_attempt(row));
        Some(tokio::spawn(async move { conductor.ask_one(&host, of).await }.in_current_span()))
    }

    /// libvirt's account must not depend on who has the lease just now.
    async fn keep_result(&self, report: &MigrationReport) -> Done {
        let Some(result) = &report.result else { return Done::Yes };
        let write = async {
            let mut conn = self.store.connection().await?;
            migrations::record_job_result(&mut conn, report.migration, report.attempt, result).await
        };
        match write.await {
            Ok(()) => Done::Yes,
            Err(error) => Done::Again(error),
        }
    }
}
