//! Servers come from the hosts: what a reported domain means for the books. Pure.
//!
//! One server per UUID. A domain that is arriving, or that an open migration is about, is left to that migration. A known UUID is
//! never adopted again as another server: the recorded host's word counts first; another host's *active* copy takes over only once
//! the recorded host's is gone; two active copies are a conflict, an inactive one beside the recorded one is a leftover.

use drover_common::rpc::latest::{DomainReport, GuestState, JobKind};
use drover_common::server::VmState;
use drover_store::findings::FindingKind;
use drover_store::migrations::Migration;
use drover_store::servers::{Observer, Server, vm_state_of};

/// What to do about a reported domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing.
    Ignore,
    /// It is the server's one copy: the books follow it.
    Adopt {
        /// What the server then is.
        vm_state: VmState,
    },
    /// An operator should look.
    Finding {
        /// What it is.
        kind: FindingKind,
        /// For people.
        details: String,
    },
}

/// Whether a report is older than what is on record.
fn is_stale(observer: Observer<'_>, server: &Server) -> bool {
    server.host == *observer.host && server.observed.0 == observer.incarnation && server.observed.1 >= observer.sequence
}

/// What a domain means that a host has.
pub(crate) fn reported(
    observer: Observer<'_>,
    known: Option<&Server>,
    open: Option<&Migration>,
    domain: &DomainReport,
) -> Decision {
    if open.is_some() || domain.job == Some(JobKind::MigrationIn) {
        return Decision::Ignore;
    }
    let Some(server) = known else {
        return Decision::Adopt { vm_state: vm_state_of(domain.state.power_state()) };
    };
    if is_stale(observer, server) {
        return Decision::Ignore;
    }
    let recorded_here = server.host == *observer.host;
    if recorded_here && domain.job == Some(JobKind::MigrationOut) {
        return Decision::Finding {
            kind: FindingKind::ForeignJob,
            details: format!(
                "libvirt on {} migrates {} away, and no migration of ours is about it",
                observer.host, domain.domain_name
            ),
        };
    }
    if server.deleted_at.is_some() || recorded_here {
        return Decision::Adopt { vm_state: followed(server, domain.state) };
    }
    if !domain.state.is_active() {
        return Decision::Finding {
            kind: FindingKind::Leftover,
            details: format!("{} has an inactive definition of {}, which is on {}", observer.host, server.uuid, server.host),
        };
    }
    Decision::Finding {
        kind: FindingKind::OwnershipConflict,
        details: format!(
            "{} has an active copy of {}, which is recorded on {}: until that host says that its own is gone, both may run",
            observer.host, server.uuid, server.host
        ),
    }
}

/// `vm_state` follows the guest; an operator's `error` stays on a guest that is off.
fn followed(server: &Server, state: GuestState) -> VmState {
    match (server.vm_state, state) {
        (VmState::Error, state) if !state.is_active() => VmState::Error,
        // A foreign migration stops the guest for a moment: no reason to call it paused.
        (old @ (VmState::Active | VmState::Paused), GuestState::PausedMigration | GuestState::PausedPostCopy) => old,
        (_, state) => vm_state_of(state.power_state()),
    }
}

/// Whether a server is gone because its host no longer has its domain.
pub(crate) fn gone(observer: Observer<'_>, known: Option<&Server>, open: Option<&Migration>) -> bool {
    known.is_some_and(|server| {
        open.is_none() && server.deleted_at.is_none() && server.host == *observer.host && !is_stale(observer, server)
    })
}
