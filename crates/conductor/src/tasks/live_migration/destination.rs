//! Finding a destination: the requested one, or the scheduler's hosts in their order until one passes.
//!
//! Per candidate the destination's agent is asked, then the source's with what the destination found. Refused: the host and the
//! reason are remembered, and the next one is tried, up to `migrate_max_retries`. A candidate that only lacks a slot is passed by;
//! if nobody else passes, the migration waits for one.

use std::sync::Arc;
use std::time::Instant;

use drover_common::fault::{Fault, FaultClass};
use drover_common::ids::HostName;
use drover_common::rpc::latest::{CheckDestination, CheckSource, DestinationCheck, GuestDescription, MigrateData, ToCompute};
use drover_store::StoreError;
use drover_store::actions::{EndedEvent, names};
use drover_store::hosts::HostState;
use drover_store::migrations::{Migration, Refusal};
use tracing::info;

use super::claim::ClaimOutcome;
use super::prechecks::{Checked, Guest};
use crate::scheduler::filters;
use crate::{Conductor, metrics};

impl Conductor {
    /// Finds a destination that passes everything, and claims it.
    pub(crate) async fn find_destination(
        self: &Arc<Self>,
        row: &Migration,
        guest: &Guest,
        events: &mut Vec<EndedEvent>,
    ) -> Result<Checked, StoreError> {
        match &row.requested_host {
            Some(host) => self.requested_destination(row, guest, host, events).await,
            None => self.scheduled_destination(row, guest, events).await,
        }
    }

    /// `check_requested_destination`: the user hears the real reason.
    async fn requested_destination(
        self: &Arc<Self>,
        row: &Migration,
        guest: &Guest,
        host: &HostName,
        events: &mut Vec<EndedEvent>,
    ) -> Result<Checked, StoreError> {
        let refused = |fault: Fault| {
            metrics::refused(&fault);
            Checked::Refused(fault.clone(), vec![Refusal { host: host.clone(), fault }])
        };
        let Some(state) = guest.hosts.first() else {
            return Ok(refused(Fault::compute_host_not_found(host)));
        };
        let scheduler = &self.settings.scheduler;
        let must = filters::REQUESTED_HOST.iter().find_map(|filter| filter.refuse(state, &guest.spec, &scheduler.allowance));
        let wanted = || {
            if row.skip_scheduler {
                return None;
            }
            self.notify_selection(row, "start");
            let refused = scheduler.refuse(state, &guest.spec);
            if refused.is_none() {
                self.notify_selection(row, "end");
            }
            refused
        };
        if let Some(fault) = must.or_else(wanted) {
            return Ok(refused(fault));
        }
        match self.check_candidate(row, guest, state, events).await {
            Err(fault) => Ok(refused(fault)),
            Ok(data) => match self.claim(row, guest, state, data, events).await? {
                ClaimOutcome::Claimed(step) => Ok(Checked::Claimed(step)),
                // It goes nowhere else, whichever slot is missing.
                ClaimOutcome::NoSlot(missing) => Ok(Checked::NoSlot { why: missing.why, hosts: Some(vec![host.clone()]) }),
                ClaimOutcome::Refused(fault) => Ok(refused(fault)),
                ClaimOutcome::Changed => Ok(Checked::Changed),
            },
        }
    }

    /// `find_destination`: the scheduler's hosts, one after the other.
    async fn scheduled_destination(
        self: &Arc<Self>,
        row: &Migration,
        guest: &Guest,
        events: &mut Vec<EndedEvent>,
    ) -> Result<Checked, StoreError> {
        self.notify_selection(row, "start");
        let began = Instant::now();
        let (candidates, mut refusals) = self.settings.scheduler.select_destinations(&guest.hosts, &guest.spec);
        metrics::scheduled(began.elapsed());
        if !candidates.is_empty() {
            self.notify_selection(row, "end");
        }
        // Hosts that a former try of this migration failed on are not taken again.
        refusals.retain(|refusal| refusal.host != row.source && !row.refusals.iter().any(|former| former.host == refusal.host));
        refusals.splice(0..0, row.refusals.iter().cloned());
        let mut tried = 0;
        let (mut no_slot, mut lack_a_slot) = (None, Vec::new());
        for state in candidates {
            if row.refusals.iter().any(|former| former.host == state.host) {
                continue;
            }
            if self.settings.migrate_max_retries.is_some_and(|most| tried > most) {
                let fault = Fault::max_retries_exceeded(tried - 1, row.server, told(&refusals));
                return Ok(Checked::Refused(fault, refusals));
            }
            tried += 1;
            let refused = match self.check_candidate(row, guest, state, events).await {
                Ok(data) => match self.claim(row, guest, state, data, events).await? {
                    ClaimOutcome::Claimed(step) => return Ok(Checked::Claimed(step)),
                    ClaimOutcome::Changed => return Ok(Checked::Changed),
                    ClaimOutcome::NoSlot(missing) if missing.at_destination => {
                        no_slot = Some(missing.why);
                        lack_a_slot.push(state.host.clone());
                        continue;
                    }
                    // Nor is there one for any other destination.
                    ClaimOutcome::NoSlot(missing) => return Ok(Checked::NoSlot { why: missing.why, hosts: None }),
                    ClaimOutcome::Refused(fault) => fault,
                },
                Err(fault) if fault.class.another_host_may_do() => fault,
                Err(fault) => {
                    metrics::refused(&fault);
                    return Ok(Checked::Refused(fault, refusals));
                }
            };
            metrics::refused(&refused);
            info!(host = %state.host, error = %refused, "candidate refused");
            refusals.push(Refusal { host: state.host.clone(), fault: refused });
        }
        Ok(match no_slot {
            Some(why) => Checked::NoSlot { why, hosts: Some(lack_a_slot) },
            None => Checked::Refused(Fault::no_valid_host(told(&refusals)), refusals),
        })
    }

    /// Both agents about one candidate.
    async fn check_candidate(
        &self,
        row: &Migration,
        guest: &Guest,
        candidate: &HostState,
        events: &mut Vec<EndedEvent>,
    ) -> Result<MigrateData, Fault> {
        let question = ToCompute::CheckCanLiveMigrateDestination(CheckDestination {
            migration: row.id,
            server: row.server,
            guest: guest.description.clone(),
            source_host: row.source.clone(),
        });
        let found: DestinationCheck = self.check(row, &candidate.host, names::CHECK_DESTINATION, question, events).await?;
        let question = ToCompute::CheckCanLiveMigrateSource(CheckSource {
            migration: row.id,
            server: row.server,
            // The source reads the guest's XML anew.
            guest: GuestDescription { xml: String::new(), ..guest.description.clone() },
            destination_host: candidate.host.clone(),
            found,
            block_migration: row.block_migration,
            disk_over_commit: row.disk_over_commit,
        });
        self.check(row, &row.source, names::CHECK_SOURCE, question, events).await
    }

    async fn check<R: serde::de::DeserializeOwned>(
        &self,
        row: &Migration,
        host: &HostName,
        name: &'static str,
        question: ToCompute,
        events: &mut Vec<EndedEvent>,
    ) -> Result<R, Fault> {
        let began = Instant::now();
        let answer = self.agents.call::<R>(host, question, Some(&row.request_id), self.settings.rpc_response_timeout).await;
        // A defect or a full disk on one host says nothing about the others: it becomes a refusal like any other.
        let answer = answer.map_err(|fault| match fault.class {
            FaultClass::Unexpected => Fault::precheck(format_args!("{host} could not check: {fault}")),
            _ => fault,
        });
        events.push(EndedEvent { name, host: host.clone(), lasted: began.elapsed(), fault: answer.as_ref().err().cloned() });
        answer
    }
}

/// Every refused host with its reason, in one line.
fn told(refusals: &[Refusal]) -> String {
    refusals.iter().map(|refusal| format!("{}: {}", refusal.host, refusal.fault)).collect::<Vec<_>>().join("; ")
}
