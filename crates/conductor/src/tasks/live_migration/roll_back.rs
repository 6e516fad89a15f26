//! Going back: nothing new may start, the destination removes what this attempt left, the source's guest goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_common::fault::{Fault, FaultClass};
use drover_common::ids::Attempt;
use drover_common::migration::{Event, MigrationStatus};
use drover_common::rpc::latest::{Authority, CleanUp, GuestState, ToCompute};
use drover_store::actions::{EndedEvent, names};
use drover_store::debts::{self, Side};
use drover_store::migrations::{Ending, Migration, Refusal, advance};
use drover_store::{StoreError, actions, claims, commit};
use tracing::{info, warn};

use super::closing::{Debt, Outcome, Settle};
use super::start::{is_unreachable, of_attempt, wait_for_broker};
use crate::drive::Step;
use crate::notifications;
use crate::recovery::plan::{Facts, Next, View, plan};
use crate::{Conductor, metrics};

/// When something that did not work is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

impl Conductor {
    /// The decision to go back: the attempt's number is taken from it, so that no grant of it holds any more.
    pub(crate) async fn begin_roll_back(self: &Arc<Self>, row: &Migration, ending: Ending, why: &str) -> Result<Step, StoreError> {
        let fault = match ending {
            Ending::Cancelled => match &row.abort_requested_by {
                Some(by) => Fault::aborted(by),
                None => Fault::aborted(format_args!("its source's agent: {why}")),
            },
            Ending::Failed | Ending::Retry => Fault::migration_error(why),
        };
        self.begin_roll_back_for(row, ending, fault).await
    }

    /// The same, for a fault that is there already.
    pub(crate) async fn begin_roll_back_for(
        self: &Arc<Self>,
        row: &Migration,
        ending: Ending,
        fault: Fault,
    ) -> Result<Step, StoreError> {
        info!(ending = %ending, error = %fault, "rolling back");
        let mut conn = self.store.connection().await?;
        let result = row.job_result.clone();
        let after = advance(&mut conn, row, Event::RollBack, |after| {
            after.attempt.0 += 1;
            after.ending = Some(ending);
            after.fault = Some(fault.for_caller());
            after.job_result = result;
        });
        let after = after.await?;
        if after.is_some() {
            metrics::rolls_back(ending);
            if ending == Ending::Cancelled && row.abort_requested_by.is_some() {
                self.notify_start(row, notifications::Step::Abort, &row.source);
                self.notify_end(row, notifications::Step::Abort, &row.source);
            }
            self.notify_start(row, notifications::Step::Rollback, &row.source);
            if row.bandwidth_mib.is_some() {
                self.links_changed();
            }
        }
        Ok(Step::written(after))
    }

    /// Cleans the destination, or leaves that as a debt, and closes (or tries again). The source holds the guest.
    pub(crate) async fn finish_roll_back(
        self: &Arc<Self>,
        row: &Migration,
        source: Option<GuestState>,
        destination_answers: bool,
    ) -> Result<Step, StoreError> {
        let began = Instant::now();
        if let (Some(destination), true) = (&row.destination, destination_answers) {
            self.notify_start(row, notifications::Step::RollbackDest, destination);
        }
        let cleaned = if destination_answers { self.rollback_at_destination(row).await } else { Err(unanswered(row)) };
        if let Err(fault) = &cleaned
            && fault.class == FaultClass::MessageDeliveryFailure
        {
            return Ok(wait_for_broker(fault));
        }
        let ending = row.ending.unwrap_or(Ending::Failed);
        let mut outcome = Outcome::of(match ending {
            Ending::Retry => Event::Retried,
            Ending::Failed => Event::RolledBackFailed,
            Ending::Cancelled => Event::RolledBackCancelled,
        });
        if let (Some(destination), true) = (&row.destination, destination_answers) {
            let (name, host) = (names::ROLLBACK_AT_DESTINATION, destination.clone());
            outcome.events.push(EndedEvent { name, host, lasted: began.elapsed(), fault: cleaned.as_ref().err().cloned() });
            self.notify_end(row, notifications::Step::RollbackDest, destination);
        }
        if let (Err(fault), Some(destination)) = (&cleaned, &row.destination) {
            warn!(error = %fault, destination = %destination, "the destination still has to clean up: a debt");
            let why = fault.message.clone();
            outcome.debts.push(Debt { host: destination.clone(), side: Side::Destination, left_by: left_by(row), why });
        }
        if ending == Ending::Retry {
            return self.try_again(row, outcome).await;
        }
        outcome.fault.clone_from(&row.fault);
        outcome.settle = source.map(|state| Settle {
            host: row.source.clone(),
            node: row.source_node.clone().unwrap_or_default(),
            power_state: state.power_state(),
            observed: None,
        });
        let closed = self.close(row, outcome, |_| ()).await?;
        if matches!(closed, Step::Closed) {
            self.notify_end(row, notifications::Step::Rollback, &row.source);
        }
        Ok(closed)
    }

    /// Back to the checks, without this destination.
    async fn try_again(self: &Arc<Self>, row: &Migration, outcome: Outcome) -> Result<Step, StoreError> {
        let mut tx = self.store.begin().await?;
        actions::record_events(&mut tx, row.action, &outcome.events).await?;
        self.record_debts(&mut tx, row, &outcome.debts).await?;
        actions::close_events(&mut tx, row.action, row.fault.as_ref()).await?;
        claims::release(&mut tx, row.id).await?;
        let after = advance(&mut tx, row, Event::Retried, |after| {
            let fault = after.fault.take().unwrap_or_else(|| Fault::unexpected("rolled back"));
            after.refusals.extend(after.destination.take().map(|host| Refusal { host, fault }));
            after.dest_node = None;
            after.data = None;
            after.ending = None;
            after.job_result = None;
            after.start_incarnation = None;
            after.retries += 1;
        });
        let Some(after) = after.await? else { return Ok(Step::Changed) }; // And the transaction with it.
        commit(tx).await?;
        self.slot_freed();
        Ok(Step::Row(Box::new(after)))
    }

    /// Removes the destination's copy that waits for its state; only then may the source's go on.
    pub(crate) async fn destroy_destination(self: &Arc<Self>, row: &Migration) -> Result<Step, StoreError> {
        match self.rollback_at_destination(row).await {
            Ok(()) => {
                let facts = self.ask(row, &Facts::NONE, true, false).await;
                // An agent that finds nothing of this attempt to remove is content each time: it is not asked in circles.
                let still_there = plan(&View::of(row), &facts) == Next::DestroyDestination;
                let wait = || Step::Wait("the destination's copy to be gone: it lacks this attempt's mark".to_owned(), TRY_AGAIN);
                Ok(if still_there { wait() } else { Step::Facts(facts) })
            }
            Err(fault) => Ok(Step::Wait(format!("the destination to remove its copy: {fault}"), TRY_AGAIN)),
        }
    }

    /// Lets the source's guest go on.
    pub(crate) async fn resume_source(self: &Arc<Self>, row: &Migration) -> Result<Step, StoreError> {
        let message = ToCompute::ResumeGuest(of_attempt(row));
        let resumed = self.agents.call::<()>(&row.source, message, Some(&row.request_id), self.settings.rpc_response_timeout).await;
        match resumed {
            Ok(()) => {
                info!(source = %row.source, "the source's guest goes on");
                Ok(Step::Facts(Facts::NONE))
            }
            Err(fault) => Ok(Step::Wait(format!("the source to resume the guest: {fault}"), TRY_AGAIN)),
        }
    }

    async fn rollback_at_destination(&self, row: &Migration) -> Result<(), Fault> {
        let (Some(destination), Some(data)) = (&row.destination, &row.data) else {
            return Ok(());
        };
        let message = ToCompute::RollbackLiveMigrationAtDestination(CleanUp {
            migration: row.id,
            left_by: left_by(row),
            server: row.server,
            authority: Authority::Migration { attempt: row.attempt },
            data: data.clone(),
            probes: None,
        });
        self.agents.call::<()>(destination, message, Some(&row.request_id), self.settings.rpc_response_timeout).await
    }

    /// Pays one debt, now that its host answers. Returns whether it is paid.
    pub(crate) async fn pay(&self, debt: &debts::Debt) -> Result<bool, StoreError> {
        let clean_up = CleanUp {
            migration: debt.migration,
            left_by: debt.left_by,
            server: debt.server,
            authority: Authority::Debt { id: debt.id },
            data: debt.data.clone(),
            probes: None,
        };
        let paid = match debt.side {
            Side::Destination => {
                let message = ToCompute::RollbackLiveMigrationAtDestination(clean_up);
                self.agents.call::<()>(&debt.host, message, None, self.settings.rpc_response_timeout).await
            }
            Side::Source => self.clean_source(&debt.host, clean_up, None).await,
        };
        let mut conn = self.store.connection().await?;
        match paid {
            Ok(()) => {
                info!(host = %debt.host, migration.id = %debt.migration, "debt paid: cleaned up");
                debts::paid(&mut conn, debt.id).await?;
                Ok(true)
            }
            Err(fault) => {
                if !is_unreachable(&fault) {
                    warn!(host = %debt.host, migration.id = %debt.migration, error = %fault, "debt not paid");
                }
                debts::failed(&mut conn, debt.id, &fault.message).await?;
                Ok(false)
            }
        }
    }
}

/// The attempt whose traces are removed: the one before the decision to go back.
fn left_by(row: &Migration) -> Attempt {
    debug_assert_eq!(row.status, MigrationStatus::RollingBack);
    Attempt(row.attempt.0 - 1)
}

fn unanswered(row: &Migration) -> Fault {
    row.destination.as_ref().map_or_else(
        || Fault::unexpected("no destination"),
        |host| Fault {
            class: FaultClass::ComputeServiceUnavailable,
            ..Fault::compute_service_unavailable(host, "It was not asked.")
        },
    )
}
