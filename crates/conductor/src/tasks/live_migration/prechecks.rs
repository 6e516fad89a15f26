//! The checks before anything is claimed (Nova: `nova/conductor/tasks/live_migrate.py`).
//!
//! The guest must be there and running or paused, its source up; then a destination is found or the requested one checked
//! ([`super::destination`]), and claimed ([`super::claim`]). What refuses ends the migration with status `error`, the fault on the
//! server and the instance action, `vm_state` as it was.

use std::sync::Arc;
use std::time::Instant;

use drover_common::fault::{Fault, FaultClass};
use drover_common::ids::HostName;
use drover_common::migration::Event;
use drover_common::rpc::latest::{AboutGuest, GuestDescription, GuestState, ToCompute};
use drover_store::actions::{EndedEvent, names};
use drover_store::hosts::HostState;
use drover_store::migrations::{Migration, Refusal};
use drover_store::servers::Server;
use drover_store::{StoreError, hosts, server_groups, servers};
use tracing::info;

use super::closing::Outcome;
use super::start::wait_for_broker;
use crate::Conductor;
use crate::drive::Step;
use crate::scheduler::{PinnedZone, Spec};

/// What came of the checks.
pub(crate) enum Checked {
    /// Claimed: the row goes on as `preparing`.
    Claimed(Step),
    /// Everything fits, but a slot is missing.
    NoSlot {
        /// Which.
        why: String,
        /// The hosts that only lack a slot; none: it is not theirs that is missing.
        hosts: Option<Vec<HostName>>,
    },
    /// No, and why; with the hosts that were tried.
    Refused(Fault, Vec<Refusal>),
    /// The row is no longer what it was.
    Changed,
}

/// The guest, its source and where it might go, as found at the beginning of the checks.
pub(crate) struct Guest {
    pub server: Server,
    pub source: HostState,
    /// The requested host if there is one and it exists; else all hosts.
    pub hosts: Vec<HostState>,
    pub description: GuestDescription,
    pub spec: Spec,
}

impl Conductor {
    /// Runs all checks of an accepted migration and takes it as far as its claim.
    pub(crate) async fn precheck(self: &Arc<Self>, row: &Migration) -> Result<Step, StoreError> {
        let began = Instant::now();
        let mut events = Vec::new();
        let checked = match self.guest(row).await? {
            Ok(guest) => self.find_destination(row, &guest, &mut events).await?,
            Err(fault) => Checked::Refused(fault, Vec::new()),
        };
        match checked {
            Checked::Claimed(step) => Ok(step),
            Checked::Changed => Ok(Step::Changed),
            Checked::NoSlot { why, hosts } => self.enqueue(row, &why, hosts).await,
            Checked::Refused(fault, _) if fault.class == FaultClass::MessageDeliveryFailure => Ok(wait_for_broker(&fault)),
            Checked::Refused(fault, refusals) => {
                let fault = fault.for_caller();
                info!(error = %fault, "refused");
                let conductor_event =
                    if row.reply_to.is_some() { names::CONDUCTOR_MIGRATE_SERVER } else { names::CONDUCTOR_LIVE_MIGRATE_INSTANCE };
                let mut closing = Outcome::of(Event::Refused);
                events.push(EndedEvent {
                    name: conductor_event,
                    host: self.settings.host.clone(),
                    lasted: began.elapsed(),
                    fault: Some(fault.clone()),
                });
                closing.fault = Some(fault);
                closing.events = events;
                self.close(row, closing, |after| after.refusals = refusals).await
            }
        }
    }

    /// Checks that need no destination: the server is where the books say, its source is up, the guest runs or is paused.
    async fn guest(&self, row: &Migration) -> Result<Result<Guest, Fault>, StoreError> {
        let about = AboutGuest { migration: row.id, server: row.server };
        let ask_source = self.agents.call::<GuestDescription>(
            &row.source,
            ToCompute::DescribeGuest(about),
            Some(&row.request_id),
            self.settings.rpc_response_timeout,
        );
        let read_books = async {
            let mut conn = self.store.connection().await?;
            let server = servers::get(&mut conn, row.server).await?;
            let only = row.requested_host.as_ref().map(|host| [&row.source, host].map(|host| host.as_str().to_owned()));
            let only = only.as_ref().map(<[String; 2]>::as_slice);
            let hosts = hosts::snapshot(&mut conn, only, Some(row.server), self.settings.service_down_time).await?;
            let group = server_groups::rule_of(&mut conn, row.server).await?;
            Ok::<_, StoreError>((server, hosts, group))
        };
        let (description, books) = tokio::join!(ask_source, read_books);
        let (server, hosts, group) = books?;
        Ok(assemble(row, server, hosts, description).map(|mut guest| {
            let default = &self.settings.default_availability_zone;
            let pinned = guest.server.pinned_availability_zone.clone();
            guest.spec.availability_zone = pinned.map(|name| PinnedZone { name, default: default.clone() });
            guest.spec.group = group;
            guest
        }))
    }
}

/// In this order: the server, its source, the guest's state.
fn assemble(
    row: &Migration,
    server: Option<Server>,
    mut hosts: Vec<HostState>,
    description: Result<GuestDescription, Fault>,
) -> Result<Guest, Fault> {
    let server = server.filter(|server| server.deleted_at.is_none()).ok_or_else(|| Fault::instance_not_found(row.server))?;
    if server.host != row.source {
        return Err(Fault::precheck(format_args!(
            "instance {} was moved from {} to {} meanwhile",
            row.server, row.source, server.host
        )));
    }
    let source = hosts.iter().find(|host| host.host == row.source).cloned();
    let source = source.ok_or_else(|| Fault::compute_host_not_found(&row.source))?;
    if source.forced_down {
        return Err(Fault::compute_service_unavailable(&row.source, "It is forced down."));
    }
    let description = description?;
    if !matches!(description.state, GuestState::Running | GuestState::Paused) {
        return Err(Fault::instance_invalid_state(row.server, "power_state", description.state.power_state()));
    }
    let spec = Spec {
        server: row.server,
        source: row.source.clone(),
        hypervisor_type: source.hypervisor_type.clone(),
        hypervisor_version: source.hypervisor_version,
        vcpus: server.flavor.vcpus.into(),
        memory_mb: server.flavor.memory_mb.into(),
        availability_zone: None,
        group: None,
    };
    if let Some(requested) = &row.requested_host {
        hosts.retain(|host| host.host == *requested);
    }
    Ok(Guest { server, source, hosts, description, spec })
}
