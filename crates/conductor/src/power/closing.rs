//! The end of a power action, whichever: one transaction over everything that follows from it.

use std::sync::Arc;
use std::time::Duration;

use drover_common::fault::Fault;
use drover_common::ids::{HostName, Incarnation};
use drover_common::rpc::latest::DomainsReport;
use drover_common::server::{PowerState, VmState};
use drover_store::audit::{self, Entry};
use drover_store::power::{self, Power};
use drover_store::servers::{self, Observer, Server, vm_state_of};
use drover_store::{StoreError, Transaction, actions, commit, findings};
use tracing::{info, warn};

use super::Step;
use crate::Conductor;

/// When a guest that turned up elsewhere is looked at again; the report of its host, which says so, comes sooner.
const AFTER_MOVE: Duration = Duration::from_secs(2);

impl Conductor {
    /// Closes a power action. `seen` is who was asked, and what that host saw of the guest since. If the server is on another host by now,
    /// that word does not count: it is to be asked again.
    pub(super) async fn close_power(
        self: &Arc<Self>,
        row: &Power,
        fault: Option<Fault>,
        seen: Option<(&HostName, &DomainsReport)>,
    ) -> Result<Step, StoreError> {
        let mut tx = self.store.begin().await?;
        if !power::close(&mut tx, row.id, fault.as_ref()).await? {
            return Ok(Step::Closed); // Another drive was first.
        }
        // Before a report of the host can come in between.
        let server = servers::lock_all(&mut tx, &[row.server.0]).await?.pop();
        if let Some(server) = &server {
            let is_gone = seen.is_some_and(|(_, report)| report.gone.contains(&row.server));
            let moved = seen.is_some_and(|(asked, _)| *asked != server.host);
            if moved || (is_gone && !findings::hosts_in_conflict(&mut tx, row.server, &server.host).await?.is_empty()) {
                tx.rollback().await.map_err(StoreError::query("power.close"))?;
                return Ok(Step::Wait("the books: another host has the guest".to_owned(), AFTER_MOVE));
            }
            settle(&mut tx, row, server, fault.as_ref(), seen.map(|(_, report)| report)).await?;
        }
        match &fault {
            None => actions::close_events(&mut tx, row.instance_action, None).await?,
            Some(fault) => {
                actions::fail(&mut tx, row.instance_action, fault).await?;
                actions::record_fault(&mut tx, row.server, fault).await?;
            }
        }
        record(&mut tx, row, fault.as_ref()).await?;
        let next = power::open_of_server(&mut tx, row.server).await?;
        commit(tx).await?;
        match &fault {
            None => info!(action = %row.action, "power action done"),
            Some(fault) => warn!(action = %row.action, error = %fault, "power action failed"),
        }
        for waiting in next {
            self.wake_power(waiting.id);
        }
        Ok(Step::Closed)
    }

    /// Something that a power action may have waited for is over.
    pub(crate) fn wake_power(self: &Arc<Self>, id: drover_common::ids::PowerActionId) {
        let conductor = Arc::clone(self);
        self.life.spawn(async move {
            // Boxed: this is what a drive ends with, and what it begins.
            Box::pin(conductor.start_power(id)).await;
        });
    }

    /// The same for whatever waits for the end of a server's migration.
    pub(crate) async fn wake_power_of(self: &Arc<Self>, row: &drover_store::migrations::Migration) {
        let waiting = async {
            let mut conn = self.store.connection().await?;
            power::open_of_server(&mut conn, row.server).await
        };
        match waiting.await {
            Ok(waiting) => waiting.into_iter().for_each(|power| self.wake_power(power.id)),
            Err(error) => warn!(error = %error, "a delete that may wait is not woken; the sweep does it"),
        }
    }
}

/// Writes what is now.
async fn settle(
    tx: &mut Transaction,
    row: &Power,
    server: &Server,
    fault: Option<&Fault>,
    report: Option<&DomainsReport>,
) -> Result<(), StoreError> {
    if let Some(report) = report
        && report.gone.contains(&row.server)
        && fault.is_none()
    {
        let observer =
            Observer { host: &server.host, node: &server.node, incarnation: report.incarnation, sequence: report.sequence };
        return servers::gone(tx, observer, row.server).await;
    }
    let (power_state, observed) = seen(server, report);
    let vm_state = vm_state_after(server.vm_state, power_state, fault.is_some());
    servers::settle_after(tx, row.server, row.action, (power_state, vm_state), observed).await
}

/// How the guest is by the newest word of its host, and which word that is if it is the report.
fn seen(server: &Server, report: Option<&DomainsReport>) -> (PowerState, Option<(Incarnation, i64)>) {
    let domain = report.and_then(|report| {
        let is_older = server.observed.0 == report.incarnation && server.observed.1 >= report.sequence;
        report.domains.iter().find(|domain| domain.server == server.uuid && !is_older).map(|domain| (report, domain))
    });
    match domain {
        Some((report, domain)) => (domain.state.power_state(), Some((report.incarnation, report.sequence))),
        None => (server.power_state, None),
    }
}

/// `vm_state` follows the guest; an operator's `error` stays on a guest that is off and was not made to be.
fn vm_state_after(before: VmState, power_state: PowerState, failed: bool) -> VmState {
    match (before, vm_state_of(power_state)) {
        (VmState::Error, VmState::Stopped) if failed => VmState::Error,
        (_, now) => now,
    }
}

async fn record(tx: &mut Transaction, row: &Power, fault: Option<&Fault>) -> Result<(), StoreError> {
    let target = format!("server {}", row.server);
    let outcome = fault.map_or_else(|| "done".to_owned(), |fault| format!("failed ({fault})"));
    let entry = Entry {
        user_id: Some(&row.user_id),
        project_id: Some(&row.project_id),
        request_id: Some(row.request_id.as_str()),
        action: row.action.rule().name,
        target: &target,
        details: Some(&outcome),
    };
    audit::write(tx, entry).await
}

#[cfg(test)]
mod tests {
    use drover_common::rpc::latest::GuestState;

    use super::*;
    use crate::testing::{domain, server};

    fn report(incarnation: Incarnation, sequence: i64, state: GuestState) -> DomainsReport {
        let domains = vec![domain(state)];
        DomainsReport { incarnation, sequence, complete: false, domains, gone: Vec::new(), unreadable: Vec::new() }
    }

    #[test]
    fn the_newest_word_of_the_host_counts() {
        let server = server("h1");
        let (life, sequence) = server.observed;
        let newer = report(life, sequence + 1, GuestState::ShutOff);
        assert_eq!(seen(&server, Some(&newer)), (PowerState::Shutdown, Some((life, sequence + 1))));
        let older = report(life, sequence, GuestState::ShutOff);
        assert_eq!(seen(&server, Some(&older)), (PowerState::Running, None), "a later report was quicker");
        let next_life = report(Incarnation::random(), 1, GuestState::ShutOff);
        assert_eq!(seen(&server, Some(&next_life)).0, PowerState::Shutdown);
        assert_eq!(seen(&server, None), (PowerState::Running, None));
    }

    #[test]
    fn vm_state_is_what_the_guest_is() {
        for (before, power_state, failed, after) in [
            (VmState::Active, PowerState::Shutdown, false, VmState::Stopped),
            (VmState::Active, PowerState::Running, true, VmState::Active),
            (VmState::Active, PowerState::Shutdown, true, VmState::Stopped),
            (VmState::Error, PowerState::Shutdown, false, VmState::Stopped),
            (VmState::Error, PowerState::Shutdown, true, VmState::Error),
            (VmState::Error, PowerState::Running, true, VmState::Active),
            (VmState::Paused, PowerState::Running, false, VmState::Active),
        ] {
            assert_eq!(vm_state_after(before, power_state, failed), after, "{before} {power_state} {failed}");
        }
    }
}
