//! Claiming: the guest's size on the destination, a slot on both hosts and of the fleet, and the edge to `preparing`: one transaction.

use std::sync::Arc;

use drover_common::fault::Fault;
use drover_common::ids::HostName;
use drover_common::migration::Event;
use drover_common::rpc::latest::MigrateData;
use drover_store::actions::EndedEvent;
use drover_store::claims::{self, Claim, Claimed, NoSlot};
use drover_store::hosts::HostState;
use drover_store::migrations::{Migration, advance};
use drover_store::{StoreError, actions, commit};
use tracing::info;

use super::prechecks::Guest;
use crate::Conductor;
use crate::drive::Step;

/// What came of it.
pub(crate) enum ClaimOutcome {
    /// It is ours; the row is `preparing`.
    Claimed(Step),
    /// Which slot is missing.
    NoSlot(NoSlot),
    /// The destination filled up meanwhile.
    Refused(Fault),
    /// The row is no longer what it was.
    Changed,
}

impl Conductor {
    /// Claims `destination` for a migration that passed all checks.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        row: &Migration,
        guest: &Guest,
        destination: &HostState,
        data: MigrateData,
        events: &[EndedEvent],
    ) -> Result<ClaimOutcome, StoreError> {
        let flavor = &guest.server.flavor;
        let claim = Claim {
            migration: row.id,
            server: row.server,
            source: &row.source,
            destination: &destination.host,
            vcpus: flavor.vcpus,
            memory_mb: flavor.memory_mb,
            disk_gb: flavor.root_gb,
        };
        let mut tx = self.store.begin().await?;
        let share_mib = match claims::take(&mut tx, claim, self.settings.limits).await? {
            Claimed::Yes { share_mib } => share_mib,
            Claimed::NoSlot(missing) => return Ok(ClaimOutcome::NoSlot(missing)),
            Claimed::NoHost => return Ok(ClaimOutcome::Refused(Fault::compute_host_not_found(&destination.host))),
            Claimed::GroupPolicy(why) => return Ok(ClaimOutcome::Refused(Fault::precheck(why))),
            Claimed::NoRoom { memory_mb, vcpus } => {
                let fault = if memory_mb < flavor.memory_mb.into() {
                    Fault::lack_of_memory(row.server, &destination.host, memory_mb, flavor.memory_mb.into())
                } else {
                    Fault::precheck(format_args!("{} has {vcpus} free VCPUs, {} are needed", destination.host, flavor.vcpus))
                };
                return Ok(ClaimOutcome::Refused(fault));
            }
        };
        let after = advance(&mut tx, row, Event::Claimed, |after| {
            after.attempt.0 += 1;
            after.source_node = Some(guest.source.node.clone());
            after.destination = Some(destination.host.clone());
            after.dest_node = Some(destination.node.clone());
            after.data = Some(data);
            after.pre_done = false;
            after.casts = 0;
            after.start_incarnation = None;
            after.ending = None;
            after.bandwidth_mib = share_mib;
        });
        let Some(after) = after.await? else {
            return Ok(ClaimOutcome::Changed);
        };
        actions::record_events(&mut tx, row.action, events).await?;
        commit(tx).await?;
        info!(destination = %destination.host, attempt = %after.attempt, "destination claimed");
        self.tell_waiting_caller(row);
        if share_mib.is_some() {
            self.links_changed();
        }
        Ok(ClaimOutcome::Claimed(Step::Row(Box::new(after))))
    }

    /// Puts the migration into the queue; it holds nothing there. `hosts` are those that only lack a slot, if that is known.
    pub(crate) async fn enqueue(
        self: &Arc<Self>,
        row: &Migration,
        why: &str,
        hosts: Option<Vec<HostName>>,
    ) -> Result<Step, StoreError> {
        let mut conn = self.store.connection().await?;
        let after = advance(&mut conn, row, Event::NoSlot, |after| {
            after.waiting_for = Some(why.to_owned());
            after.slot_hosts = hosts;
        })
        .await?;
        if after.is_some() {
            info!(why, "queued");
            self.tell_waiting_caller(row);
            if row.queued_at.is_some() {
                self.slot_freed(); // What was kept for it others may have.
            }
        }
        Ok(Step::written(after))
    }
}
