//! After the switch-over: the guest lives on the destination; both hosts finish, the books follow. From here only forward.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_common::fault::{Fault, FaultClass};
use drover_common::migration::Event;
use drover_common::rpc::latest::{Arrival, Authority, CleanUp, ToCompute};
use drover_common::server::PowerState;
use drover_store::StoreError;
use drover_store::actions::{EndedEvent, names};
use drover_store::debts::Side;
use drover_store::migrations::{Migration, advance};
use tracing::{info, warn};

use super::closing::{Debt, Outcome, Settle};
use super::start::{is_unreachable, of_attempt, wait_for_broker, with_data};
use crate::Conductor;
use crate::drive::Step;
use crate::notifications;

/// When a destination that has the guest but does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(3);

impl Conductor {
    /// The facts say: the guest is on the destination.
    pub(crate) async fn switch_over(self: &Arc<Self>, row: &Migration) -> Result<Step, StoreError> {
        let mut conn = self.store.unsynced().await?; // Lost, the facts say it again.
        let result = row.job_result.clone();
        let after = advance(&mut conn, row, Event::SwitchedOver, |after| after.job_result = result).await?;
        drop(conn);
        if after.is_some() && row.force_complete_requested_by.is_some() {
            self.notify_start(row, notifications::Step::ForceComplete, &row.source);
            self.notify_end(row, notifications::Step::ForceComplete, &row.source);
        }
        if after.is_some() {
            self.notify_start(row, notifications::Step::Post, &row.source);
            if row.bandwidth_mib.is_some() {
                self.links_changed();
            }
        }
        Ok(Step::written(after))
    }

    /// `post_live_migration_at_destination` and the source's clean-up, side by side; then the books, in one transaction.
    pub(crate) async fn finish_post(self: &Arc<Self>, row: &Migration) -> Result<Step, StoreError> {
        let Some((with_data, destination)) = with_data(row) else {
            return Ok(Step::Wait("an operator: the row lacks what both hosts agreed on".to_owned(), ASK_AGAIN));
        };
        let began = Instant::now();
        let within = self.settings.rpc_response_timeout;
        let request = Some(&row.request_id);
        let take_over = ToCompute::PostLiveMigrationAtDestination(with_data.clone());
        let clean_up = CleanUp {
            migration: row.id,
            left_by: row.attempt,
            server: row.server,
            authority: Authority::Migration { attempt: row.attempt },
            data: with_data.data.clone(),
            probes: None,
        };
        self.notify_start(row, notifications::Step::PostDest, &destination);
        let (taken_over, cleaned_up) = tokio::join!(
            self.agents.call::<Arrival>(&destination, take_over, request, within),
            self.clean_source(&row.source, clean_up, request),
        );
        let mut power_state = match &taken_over {
            Ok(Arrival { report, .. }) => report.domains.first().map_or(PowerState::NoState, |domain| domain.state.power_state()),
            // It was seen there after the move: it has gone off since, and with it a transient domain.
            Err(fault) if fault.class == FaultClass::InstanceNotFound => PowerState::Shutdown,
            // An operator asserts that the host is fenced, and the guest with it: it was there, and it is off.
            Err(fault) if is_unreachable(fault) && self.is_forced_down(&destination).await => PowerState::Shutdown,
            Err(fault) => {
                warn!(error = %fault, destination = %destination, "the destination has not taken over yet");
                return Ok(Step::Wait(format!("the destination to take over: {fault}"), ASK_AGAIN));
            }
        };
        if let Err(fault) = &cleaned_up
            && fault.class == FaultClass::MessageDeliveryFailure
        {
            return Ok(wait_for_broker(fault));
        }
        // Reports that were made before the guest came must not say later that it is gone.
        let observed = taken_over.as_ref().ok().map(|arrival| (arrival.report.incarnation, arrival.report.sequence));
        let announced_after_ms = taken_over.as_ref().ok().and_then(|arrival| arrival.announced_after_ms);
        let mut outcome = Outcome::of(Event::Finished);
        outcome.events.push(EndedEvent {
            name: names::POST_AT_DESTINATION,
            host: destination.clone(),
            lasted: began.elapsed(),
            fault: taken_over.err(),
        });
        if let Err(fault) = cleaned_up {
            warn!(error = %fault, source = %row.source, "the source still has to clean up: a debt");
            outcome.debts.push(Debt { host: row.source.clone(), side: Side::Source, left_by: row.attempt, why: fault.message });
        }
        if row.keep.as_ref() == Some(&destination) && !with_data.data.paused && power_state == PowerState::Paused {
            // It stood while nobody knew whose copy the guest is; now it is this one.
            let message = ToCompute::ResumeGuest(of_attempt(row));
            if let Err(fault) = self.agents.call::<()>(&destination, message, request, within).await {
                return Ok(Step::Wait(format!("{destination} to let the chosen copy run: {fault}"), ASK_AGAIN));
            }
            power_state = PowerState::Running;
        }
        info!(destination = %with_data.data.destination.host, "the guest is on the destination");
        let node = row.dest_node.clone().unwrap_or_default();
        outcome.settle = Some(Settle { host: destination.clone(), node, power_state, observed });
        let closed = self.close(row, outcome, |after| after.announced_after_ms = announced_after_ms).await?;
        if matches!(closed, Step::Closed) {
            self.notify_end(row, notifications::Step::PostDest, &destination);
            self.notify_end(row, notifications::Step::Post, &row.source);
        }
        Ok(closed)
    }

    /// The guest is on neither host: the books say so, and nobody starts it again.
    pub(crate) async fn guest_lost(self: &Arc<Self>, row: &Migration) -> Result<Step, StoreError> {
        let destination = row.destination.clone().unwrap_or_else(|| row.source.clone());
        let mut outcome = Outcome::of(Event::GuestLost);
        outcome.fault = Some(Fault::instance_lost(row.server, &row.source, &destination));
        outcome.lost = true;
        self.close(row, outcome, |_| ()).await
    }
}
