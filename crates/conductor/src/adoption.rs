//! Servers come from the hosts: what a reported domain means for the books. Pure.
//!
//! One server per UUID. A domain that is arriving, or that an open migration is about, is left to that migration. A known UUID is
//! never adopted again as another server: the recorded host's word counts first; another host's *active* copy takes over only once
//! the recorded host's is gone or off; two active copies are a conflict, an inactive one beside the recorded one is a leftover.

use drover_common::rpc::latest::{DomainReport, GuestState, JobKind};
use drover_common::server::{PowerState, VmState};
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

/// What a domain means that a host has. `owed`: a failed migration left a copy there that is still to be cleaned up.
pub(crate) fn reported(
    observer: Observer<'_>,
    known: Option<&Server>,
    open: Option<&Migration>,
    owed: bool,
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
    let active = domain.state.is_active();
    let recorded_is_off = matches!(server.power_state, PowerState::Shutdown | PowerState::Crashed);
    // Whoever switches off the guest, or deletes it, does not make a guest of what a migration left elsewhere; and in the middle of a
    // reboot it is off, too.
    let may_take_over = !owed && (server.deleted_at.is_some() || (active && recorded_is_off && server.task_state.is_none()));
    if recorded_here || may_take_over {
        return Decision::Adopt { vm_state: followed(server, domain.state) };
    }
    if !active {
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
        // A power action is under way: its end says what it came to.
        (old, _) if server.task_state.is_some() && server.deleted_at.is_none() => old,
        (VmState::Error, state) if !state.is_active() => VmState::Error,
        // A foreign migration stops the guest for a moment: no reason to call it paused.
        (old @ (VmState::Active | VmState::Paused), GuestState::PausedMigration | GuestState::PausedPostCopy) => old,
        (_, state) => vm_state_of(state.power_state()),
    }
}

/// Whether a server is gone because its host no longer has its domain. One that is in `error` stays for people to see: its guest was
/// lost, or an operator wants to look at it.
pub(crate) fn gone(observer: Observer<'_>, known: Option<&Server>, open: Option<&Migration>) -> bool {
    known.is_some_and(|server| {
        open.is_none()
            && server.vm_state != VmState::Error
            && server.deleted_at.is_none()
            && server.host == *observer.host
            && !is_stale(observer, server)
    })
}

#[cfg(test)]
mod tests {
    use drover_common::ids::{HostName, Incarnation};
    use drover_common::migration::MigrationStatus;
    use drover_common::server::TaskState;

    use super::*;
    use crate::testing::{domain, migration, server};

    fn from(host: &HostName, life: Incarnation, sequence: i64) -> Observer<'_> {
        Observer { host, node: "node", incarnation: life, sequence }
    }

    fn hosts() -> (HostName, HostName) {
        (HostName::new("h1").unwrap(), HostName::new("h2").unwrap())
    }

    #[test]
    fn a_new_domain_becomes_a_server_unless_it_is_arriving() {
        let (h1, _) = hosts();
        let observer = from(&h1, Incarnation::random(), 1);
        for (state, vm_state) in [
            (GuestState::Running, VmState::Active),
            (GuestState::Paused, VmState::Paused),
            (GuestState::ShutOff, VmState::Stopped),
            (GuestState::Crashed, VmState::Stopped),
        ] {
            assert_eq!(reported(observer, None, None, false, &domain(state)), Decision::Adopt { vm_state }, "{state}");
        }
        let arriving = DomainReport { job: Some(JobKind::MigrationIn), ..domain(GuestState::PausedMigration) };
        assert_eq!(reported(observer, None, None, false, &arriving), Decision::Ignore);
    }

    #[test]
    fn what_a_migration_left_elsewhere_is_not_taken_for_a_guest_that_is_off_or_deleted() {
        let (_, h2) = hosts();
        let observer = from(&h2, Incarnation::random(), 9);
        let mut known = server("h1");
        known.power_state = PowerState::Shutdown;
        known.vm_state = VmState::Stopped;
        let takes_over = |known: &Server, owed| {
            matches!(reported(observer, Some(known), None, owed, &domain(GuestState::Paused)), Decision::Adopt { .. })
        };
        assert!(takes_over(&known, false), "it was moved by hand");
        assert!(!takes_over(&known, true), "a clean-up is owed");
        known.task_state = Some(TaskState::RebootingHard);
        assert!(!takes_over(&known, false), "between its end and its start");
        known.task_state = None;
        known.deleted_at = Some(known.created_at);
        assert!(takes_over(&known, false), "it is back");
        assert!(!takes_over(&known, true), "only a left copy is");
    }

    #[test]
    fn an_open_migration_decides_by_itself() {
        let (h1, h2) = hosts();
        let (known, open) = (server("h1"), migration(MigrationStatus::Running, "h1", Some("h2")));
        for host in [&h1, &h2] {
            let observer = from(host, Incarnation::random(), 9);
            assert_eq!(reported(observer, Some(&known), Some(&open), false, &domain(GuestState::Running)), Decision::Ignore);
            assert!(!gone(observer, Some(&known), Some(&open)));
        }
    }

    #[test]
    fn the_recorded_hosts_word_counts_and_older_words_do_not() {
        let (h1, _) = hosts();
        let known = server("h1");
        let (life, sequence) = known.observed;
        let off = domain(GuestState::ShutOff);
        let newer = reported(from(&h1, life, sequence + 1), Some(&known), None, false, &off);
        assert_eq!(newer, Decision::Adopt { vm_state: VmState::Stopped });
        assert_eq!(reported(from(&h1, life, sequence), Some(&known), None, false, &off), Decision::Ignore);
        assert!(gone(from(&h1, life, sequence + 1), Some(&known), None));
        assert!(!gone(from(&h1, life, sequence), Some(&known), None));
        let next_life = reported(from(&h1, Incarnation::random(), 1), Some(&known), None, false, &off);
        assert_eq!(next_life, Decision::Adopt { vm_state: VmState::Stopped });
    }

    #[test]
    fn another_hosts_copy_is_a_conflict_or_a_leftover_until_the_recorded_one_is_gone() {
        let (_, h2) = hosts();
        let mut known = server("h1");
        let observer = from(&h2, Incarnation::random(), 1);
        let kind = |decision| match decision {
            Decision::Finding { kind, .. } => Some(kind),
            _ => None,
        };
        let active = reported(observer, Some(&known), None, false, &domain(GuestState::Running));
        assert_eq!(kind(active), Some(FindingKind::OwnershipConflict));
        let inactive = reported(observer, Some(&known), None, false, &domain(GuestState::ShutOff));
        assert_eq!(kind(inactive), Some(FindingKind::Leftover));
        assert!(!gone(observer, Some(&known), None), "not this host's to say");
        known.power_state = PowerState::Shutdown;
        let off_there = reported(observer, Some(&known), None, false, &domain(GuestState::Running));
        assert_eq!(off_there, Decision::Adopt { vm_state: VmState::Active }, "the active copy decides");
        let both_off = reported(observer, Some(&known), None, false, &domain(GuestState::ShutOff));
        assert_eq!(kind(both_off), Some(FindingKind::Leftover));
        known.deleted_at = Some(known.created_at);
        let moved_by_hand = reported(observer, Some(&known), None, false, &domain(GuestState::Running));
        assert_eq!(moved_by_hand, Decision::Adopt { vm_state: VmState::Active });
    }

    #[test]
    fn a_job_that_nobody_asked_for_is_a_finding_and_a_stop_in_it_no_pause() {
        let (h1, _) = hosts();
        let known = server("h1");
        let observer = from(&h1, Incarnation::random(), 1);
        let leaving = DomainReport { job: Some(JobKind::MigrationOut), ..domain(GuestState::Running) };
        let decision = reported(observer, Some(&known), None, false, &leaving);
        assert!(matches!(decision, Decision::Finding { kind: FindingKind::ForeignJob, .. }), "{decision:?}");
        let stands = reported(observer, Some(&known), None, false, &domain(GuestState::PausedMigration));
        assert_eq!(stands, Decision::Adopt { vm_state: VmState::Active });
    }

    #[test]
    fn a_guest_that_is_off_for_the_moment_of_a_reboot_is_not_stopped() {
        let (h1, _) = hosts();
        let known = Server { task_state: Some(TaskState::Rebooting), ..server("h1") };
        let decision = reported(from(&h1, Incarnation::random(), 1), Some(&known), None, false, &domain(GuestState::ShutOff));
        assert_eq!(decision, Decision::Adopt { vm_state: VmState::Active });
    }

    #[test]
    fn a_lost_guests_server_stays_for_people_to_see() {
        let (h1, _) = hosts();
        let known = Server { vm_state: VmState::Error, power_state: PowerState::Shutdown, ..server("h1") };
        assert!(!gone(from(&h1, Incarnation::random(), 1), Some(&known), None));
    }

    #[test]
    fn error_stays_while_the_guest_is_off_and_goes_when_it_runs() {
        let (h1, _) = hosts();
        let known = Server { vm_state: VmState::Error, ..server("h1") };
        let decide = |state| reported(from(&h1, Incarnation::random(), 1), Some(&known), None, false, &domain(state));
        assert_eq!(decide(GuestState::ShutOff), Decision::Adopt { vm_state: VmState::Error });
        assert_eq!(decide(GuestState::Running), Decision::Adopt { vm_state: VmState::Active });
    }
}
