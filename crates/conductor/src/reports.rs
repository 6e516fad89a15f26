//! What agents say of a copy: samples of progress, and that something happened to an attempt.

use std::sync::Arc;
use std::time::Duration;

use drover_common::ids::HostName;
use drover_common::rpc::latest::{DecisionReport, MigrationReport, ProgressReport};
use drover_common::telemetry;
use drover_store::migrations::steps;
use drover_store::{StoreError, migrations, servers};
use tracing::{debug, info, warn};

use crate::Conductor;
use crate::consumer::{Done, takes_part};
use crate::drive::News;

/// Without a sample for this long, both hosts are asked.
const SILENT_FOR: Duration = Duration::from_secs(20);

impl Conductor {
    /// A sample of a running copy. Lossy: the next one comes.
    pub(crate) async fn progress(&self, host: &HostName, report: &ProgressReport) -> Done {
        let write = async {
            let mut tx = self.store.begin_unsynced().await?;
            let (of, progress) = (&report.of, &report.progress);
            let of_row = migrations::record_progress(&mut tx, of.migration, of.attempt, host, progress, SILENT_FOR).await?;
            if let Some(server) = of_row {
                servers::set_progress(&mut tx, server, progress.percent()).await?;
            }
            drover_store::commit(tx).await
        };
        if let Err(error) = write.await {
            debug!(error = telemetry::chain(&error), "sample not written");
        }
        Done::Yes
    }

    /// A decision about a copy: a line on the migration, and no more.
    pub(crate) async fn decided(&self, host: &HostName, report: &DecisionReport) -> Done {
        let DecisionReport { of, decision } = report;
        let write = async {
            let mut conn = self.store.connection().await?;
            steps::decided(&mut conn, of.migration, of.attempt, host, decision).await
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
        let news = News { revision: report.revision, source: report.facts.clone(), result: report.result.clone() };
        match self.start_drive(id, Some(news)).await {
            Done::Yes => self.keep_result(&report).await,
            again @ Done::Again(_) => again,
        }
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
