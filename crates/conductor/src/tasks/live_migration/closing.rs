//! The end of a migration, whichever: one transaction over everything that follows from it, and then whom it concerns is told.

use std::sync::Arc;

use drover_common::bus::Address;
use drover_common::fault::Fault;
use drover_common::ids::{Attempt, HostName, Incarnation, MigrationId};
use drover_common::migration::{Event, MigrationStatus};
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::ToApi;
use drover_common::server::PowerState;
use drover_store::actions::EndedEvent;
use drover_store::audit::{self, Entry};
use drover_store::debts::{self, Side};
use drover_store::findings::{self, FindingKind};
use drover_store::migrations::{self, Migration, advance, steps};
use drover_store::servers::{self, Settled};
use drover_store::{StoreError, Transaction, actions, claims, commit};
use tracing::{info, warn};

use crate::consumer::Done;
use crate::drive::Step;
use crate::{Conductor, metrics};

/// What follows from an end.
pub(crate) struct Outcome {
    /// The edge to it.
    pub event: Event,
    /// Why, if it is no success.
    pub fault: Option<Fault>,
    /// Where the guest is, if that was looked at; none leaves the books as they are and sets the server free.
    pub settle: Option<Settle>,
    /// The guest is nowhere.
    pub lost: bool,
    /// What hosts still owe.
    pub debts: Vec<Debt>,
    /// Steps to be recorded on the instance action.
    pub events: Vec<EndedEvent>,
}

/// Where the guest is, and how.
pub(crate) struct Settle {
    pub host: HostName,
    pub node: String,
    pub power_state: PowerState,
    /// The host's report that says so: (the agent's life, its count).
    pub observed: Option<(Incarnation, i64)>,
}

/// What a host still owes.
pub(crate) struct Debt {
    pub host: HostName,
    pub side: Side,
    pub left_by: Attempt,
    pub why: String,
}

impl Outcome {
    /// Just the edge.
    pub(crate) fn of(event: Event) -> Self {
        Self { event, fault: None, settle: None, lost: false, debts: Vec::new(), events: Vec::new() }
    }
}

impl Conductor {
    /// Closes a migration.
    pub(crate) async fn close(
        self: &Arc<Self>,
        row: &Migration,
        outcome: Outcome,
        change: impl FnOnce(&mut Migration) + Send,
    ) -> Result<Step, StoreError> {
        let mut tx = self.store.begin().await?;
        let fault = outcome.fault.clone();
        let after = advance(&mut tx, row, outcome.event, |after| {
            change(after);
            after.fault = fault;
        });
        let Some(after) = after.await? else { return Ok(Step::Changed) };
        self.settle_books(&mut tx, row, &outcome).await?;
        actions::record_events(&mut tx, row.action, &outcome.events).await?;
        self.record_debts(&mut tx, row, &outcome.debts).await?;
        self.record_outcome(&mut tx, &after, outcome.fault.as_ref()).await?;
        if let (Event::Finished, Some(_), Some(host)) = (outcome.event, &after.abort_requested_by, &after.destination) {
            let why = format!("too late: already completed on {host}");
            steps::note(&mut tx, row.id, row.attempt, "abort", &why).await?;
        }
        if outcome.settle.is_some() || outcome.lost {
            // Both hosts were looked at: what was found about this migration's copies is settled with it.
            findings::resolve(&mut tx, &[FindingKind::OwnershipConflict, FindingKind::Undecidable], row.server, None).await?;
        }
        let held = claims::release(&mut tx, row.id).await?;
        commit(tx).await?;
        metrics::ended(row, &after);
        info!(status = %after.status, error = outcome.fault.as_ref().map(tracing::field::display), "migration closed");
        if let (Event::Refused, Some(fault)) = (outcome.event, &outcome.fault) {
            self.notify_refused(row, fault);
        }
        if held || row.queued_at.is_some() {
            self.slot_freed();
        }
        if row.bandwidth_mib.is_some() {
            self.links_changed();
        }
        self.tell_waiting_caller(row);
        self.wake_power_of(row).await;
        Ok(Step::Closed)
    }

    async fn settle_books(&self, tx: &mut Transaction, row: &Migration, outcome: &Outcome) -> Result<(), StoreError> {
        match &outcome.settle {
            _ if outcome.lost => servers::lost(tx, row.server).await,
            Some(Settle { host, node, power_state, observed }) => {
                let settled = Settled { host, node, power_state: *power_state, observed: *observed };
                servers::settle(tx, row.server, &settled).await
            }
            None => servers::release_task_state(tx, row.server).await.map(drop),
        }
    }

    async fn record_outcome(&self, tx: &mut Transaction, after: &Migration, fault: Option<&Fault>) -> Result<(), StoreError> {
        match (after.status, fault) {
            // A wish that was granted is no error.
            (MigrationStatus::Cancelled, _) if after.abort_requested_by.is_some() => {
                actions::close_events(tx, after.action, None).await?;
            }
            (_, None) => actions::close_events(tx, after.action, None).await?,
            (_, Some(fault)) => {
                actions::fail(tx, after.action, fault).await?;
                actions::record_fault(tx, after.server, fault).await?;
            }
        }
        let target = format!("server {}", after.server);
        let details = format!(
            "migration {} from {} to {}: {}{}",
            after.id,
            after.source,
            after.destination.as_ref().map_or("no host", HostName::as_str),
            after.status,
            fault.map(|f| format!(" ({f})")).unwrap_or_default(),
        );
        let entry = Entry {
            user_id: Some(&after.user_id),
            project_id: Some(&after.project_id),
            request_id: Some(after.request_id.as_str()),
            action: actions::names::LIVE_MIGRATION,
            target: &target,
            details: Some(&details),
        };
        audit::write(tx, entry).await
    }

    pub(crate) async fn record_debts(&self, tx: &mut Transaction, row: &Migration, owed: &[Debt]) -> Result<(), StoreError> {
        let Some(data) = &row.data else { return Ok(()) };
        for debt in owed {
            info!(host = %debt.host, why = debt.why, "clean-up owed");
            debts::owe(tx, (row.id, row.server), &debt.host, debt.side, debt.left_by, data).await?;
        }
        Ok(())
    }

    /// Wakes the API process in which a caller waits for the prechecks; it reads the row.
    pub(crate) fn tell_waiting_caller(self: &Arc<Self>, row: &Migration) {
        let Some(address) = row.reply_to.as_ref().filter(|_| row.status.is_precheck()) else {
            return;
        };
        let Ok(address) = address.parse::<Address>() else { return };
        let (conductor, migration) = (Arc::clone(self), row.id);
        self.life.spawn(async move {
            let envelope = Envelope::new(ToApi::MigrationMoved { migration });
            if let Err(error) = conductor.bus.cast_transient(&address, &envelope, std::time::Duration::from_secs(30)).await {
                warn!(error = %error, migration.id = %migration, "waiting caller not woken; it looks by itself");
            }
        });
    }

    /// Ends a migration that cannot even be begun: there is no such kind of move.
    pub(crate) async fn refuse(self: &Arc<Self>, id: MigrationId, fault: Fault) -> Done {
        let refuse = async {
            let mut conn = self.store.connection().await?;
            let row = migrations::get(&mut conn, id).await?;
            drop(conn);
            let Some(row) = row.filter(|row| row.status == MigrationStatus::Accepted) else {
                return Ok(());
            };
            let mut outcome = Outcome::of(Event::Refused);
            outcome.fault = Some(fault);
            self.close(&row, outcome, |_| ()).await.map(drop)
        };
        match refuse.await {
            Ok(()) => Done::Yes,
            Err(error) => Done::Again(error),
        }
    }

    /// Ends a migration that holds nothing, by request.
    pub(crate) async fn cancel(self: &Arc<Self>, row: &Migration) -> Result<Step, StoreError> {
        let mut outcome = Outcome::of(Event::Aborted);
        outcome.fault = Some(Fault::aborted(row.abort_requested_by.as_deref().unwrap_or("request")));
        self.close(row, outcome, |_| ()).await
    }
}
