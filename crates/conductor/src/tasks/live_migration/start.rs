//! From the claim to the source's start: the destination makes itself ready, the source is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_common::fault::{Fault, FaultClass};
use drover_common::rpc::latest::{OfAttempt, ToCompute, WithData};
use drover_store::actions::{EndedEvent, names};
use drover_store::migrations::{Ending, Migration, amend};
use drover_store::{StoreError, actions, commit};
use tracing::{debug, warn};

use crate::Conductor;
use crate::drive::Step;
use crate::notifications;
use crate::recovery::plan::{Nudge, RETRIES_MAX, View};

/// After a cast: the source's agent asks for its grant within milliseconds.
const GRANT_EXPECTED: Duration = Duration::from_secs(3);

impl Conductor {
    /// `pre_live_migration` on the destination; then the source is told to start.
    pub(crate) async fn pre_live_migration(self: &Arc<Self>, row: &Migration) -> Result<Step, StoreError> {
        let Some((with_data, destination)) = with_data(row) else {
            return self.without_data(row).await;
        };
        self.notify_start(row, notifications::Step::Pre, &destination);
        let began = Instant::now();
        let within = self.settings.rpc_response_timeout;
        let message = ToCompute::PreLiveMigration(with_data.clone());
        let mut ready = self.agents.call::<()>(&destination, message, Some(&row.request_id), within).await;
        if ready.is_ok() {
            ready = self.carry_images(row, &with_data, &destination).await;
        }
        if let Err(fault) = &ready
            && fault.class == FaultClass::MessageDeliveryFailure
        {
            return Ok(wait_for_broker(fault)); // What it did it will not do twice.
        }
        self.notify_end(row, notifications::Step::Pre, &destination);
        let mut tx = self.store.begin_unsynced().await?;
        // Lost, it is found out again: the destination finds its own files, and no leave is given before. The leave is durable,
        // and what is durable makes all before it so.
        let fault = ready.as_ref().err().cloned();
        let event = EndedEvent { name: names::PRE, host: destination.clone(), lasted: began.elapsed(), fault };
        actions::record_events(&mut tx, row.action, &[event]).await?;
        if let Err(fault) = ready {
            commit(tx).await?;
            warn!(error = %fault, destination = %destination, "the destination could not make itself ready");
            return self.begin_roll_back_for(row, after_failed_pre(row), fault).await;
        }
        actions::begin_event(&mut tx, row.action, names::LIVE_MIGRATE, row.source.as_str()).await?;
        let written = amend(&mut tx, row, |after| {
            after.pre_done = true;
            after.casts = 1;
        });
        let Some(after) = written.await? else {
            return Ok(Step::Changed);
        };
        commit(tx).await?;
        self.cast(&after).await;
        Ok(Step::Wait("the source's agent to start".to_owned(), GRANT_EXPECTED))
    }

    /// Tells the source once more: it has not heard of it, or does not answer.
    pub(crate) async fn cast_again(self: &Arc<Self>, row: &Migration) -> Result<Step, StoreError> {
        let mut conn = self.store.connection().await?;
        let Some(after) = amend(&mut conn, row, |after| after.casts += 1).await? else {
            return Ok(Step::Changed);
        };
        drop(conn);
        self.cast(&after).await;
        Ok(Step::Wait("the source's agent to start".to_owned(), GRANT_EXPECTED))
    }

    async fn cast(&self, row: &Migration) {
        let Some((with_data, _)) = with_data(row) else { return };
        let told = self.agents.cast(&row.source, ToCompute::LiveMigration(with_data), Some(&row.request_id)).await;
        if let Err(fault) = told {
            warn!(error = %fault, source = %row.source, "live_migration not delivered; it is told again");
        }
    }

    /// Reminds the source's agent of what is wanted; the row holds the wish.
    pub(crate) async fn nudge(&self, row: &Migration, nudge: Nudge) {
        // The attempt that the agent knows: the decision to roll back has taken the next number already.
        let of = OfAttempt { attempt: View::of(row).attempt, ..of_attempt(row) };
        let message = match nudge {
            Nudge::Abort => ToCompute::LiveMigrationAbort(of),
            Nudge::ForceComplete => ToCompute::LiveMigrationForceComplete(of),
        };
        if let Err(fault) = self.agents.cast(&row.source, message, Some(&row.request_id)).await {
            debug!(error = %fault, source = %row.source, "nudge not delivered; it is told again");
        }
    }

    /// A row that claims to be prepared without what was agreed on cannot go on: it is rolled back.
    pub(crate) async fn without_data(self: &Arc<Self>, row: &Migration) -> Result<Step, StoreError> {
        self.begin_roll_back_for(row, Ending::Failed, Fault::unexpected("the row lacks what both hosts agreed on")).await
    }
}

/// Another host may fare better, if the choice was ours.
fn after_failed_pre(row: &Migration) -> Ending {
    if row.requested_host.is_none() && row.retries < RETRIES_MAX { Ending::Retry } else { Ending::Failed }
}

/// The row's present attempt.
pub(crate) fn of_attempt(row: &Migration) -> OfAttempt {
    OfAttempt { migration: row.id, attempt: row.attempt, server: row.server }
}

/// The present attempt with what was agreed on, and the destination.
pub(crate) fn with_data(row: &Migration) -> Option<(WithData, drover_common::ids::HostName)> {
    Some((WithData { of: of_attempt(row), data: row.data.clone()? }, row.destination.clone()?))
}

/// Without a broker nothing can be said: the row is looked at again when there is one, or after this.
pub(crate) fn wait_for_broker(fault: &Fault) -> Step {
    Step::Wait(fault.message.clone(), Duration::from_secs(5))
}

/// Whether a fault means that the host could not be reached, so that nothing is known of what it did.
pub(crate) fn is_unreachable(fault: &Fault) -> bool {
    fault.class == FaultClass::ComputeServiceUnavailable
}
