//! The life of a migration: THE table of legal edges. Code, SQL guards and the diagram in `docs/live-migration.md` derive from it.
//!
//! ```text
//! accepted ──Claimed──▶ preparing ──StartGranted──▶ running ──PostCopyStarted──▶ running (post-copy)
//!  │  ▲  ▲                 │  │                      │   │                             │
//!  │  │  └─────Retried─────│──│── rolling-back ◀─────┘   └──SwitchedOver─▶ post-migrating ──▶ completed
//!  │  │                    │  └──────▲▲──│───────────────────── (if it never began) ──────────┘
//!  │ queued                │            └──▶ failed | cancelled | error
//!  └──▶ error | cancelled
//! ```
//!
//! Statuses are Nova's where Nova has one; `rolling-back` is ours (a clean-up that Nova hides behind `running`).

use crate::names;

/// Where a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MigrationStatus {
    /// Durable and promised; a conductor checks it and looks for a destination. Holds nothing.
    Accepted,
    /// Checked, waits for a free slot. Holds nothing.
    Queued,
    /// Destination claimed; it makes itself ready. The guest is untouched.
    Preparing,
    /// The start was granted: from here libvirt may have a job.
    Running,
    /// Post-copy was granted: the guest may run on the destination while its memory still comes. Once it does: forward only.
    RunningPostCopy,
    /// The guest was seen on the destination; both hosts finish.
    PostMigrating,
    /// Decided to go back; nothing new may start, both hosts clean up.
    RollingBack,
    /// The guest is on the destination, the books say so.
    Completed,
    /// The guest stayed on the source.
    Failed,
    /// Taken back by request; the guest stayed on the source.
    Cancelled,
    /// Refused before it began, or the guest was lost.
    Error,
}
names!("migration status", MigrationStatus {
    Accepted = "accepted",
    Queued = "queued",
    Preparing = "preparing",
    Running = "running",
    RunningPostCopy = "running (post-copy)",
    PostMigrating = "post-migrating",
    RollingBack = "rolling-back",
    Completed = "completed",
    Failed = "failed",
    Cancelled = "cancelled",
    Error = "error",
});

/// What moves a migration on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// All checks passed, no slot is free.
    NoSlot,
    /// A slot may be free: check again from the start.
    SlotFreed,
    /// All checks passed; claim and slots were taken.
    Claimed,
    /// A check said no for good.
    Refused,
    /// A request to abort was honoured before anything was held.
    Aborted,
    /// The source's agent may start libvirt's job.
    StartGranted,
    /// Post-copy was granted.
    PostCopyStarted,
    /// Facts of both hosts say: the guest is on the destination.
    SwitchedOver,
    /// Facts of both hosts say: go back (or nothing was started and it must not be).
    RollBack,
    /// The roll-back ended; the guest is on the source; tried again from the start, with another destination.
    Retried,
    /// The roll-back ended after a failure.
    RolledBackFailed,
    /// The roll-back ended after a request to abort.
    RolledBackCancelled,
    /// Both hosts finished.
    Finished,
    /// Facts of both hosts say: the guest is nowhere.
    GuestLost,
}

use Event as E;
use MigrationStatus as S;

/// Every legal edge. What is not here cannot be written.
pub const EDGES: &[(MigrationStatus, Event, MigrationStatus)] = &[
    (S::Accepted, E::NoSlot, S::Queued),
    (S::Accepted, E::Claimed, S::Preparing),
    (S::Accepted, E::Refused, S::Error),
    (S::Accepted, E::Aborted, S::Cancelled),
    (S::Queued, E::SlotFreed, S::Accepted),
    (S::Queued, E::Aborted, S::Cancelled),
    (S::Preparing, E::StartGranted, S::Running),
    (S::Preparing, E::RollBack, S::RollingBack),
    (S::Preparing, E::GuestLost, S::Error),
    (S::Running, E::PostCopyStarted, S::RunningPostCopy),
    (S::Running, E::SwitchedOver, S::PostMigrating),
    (S::Running, E::RollBack, S::RollingBack),
    (S::Running, E::GuestLost, S::Error),
    (S::RunningPostCopy, E::SwitchedOver, S::PostMigrating),
    // The grant comes before libvirt's call: only if the facts show that post-copy never began.
    (S::RunningPostCopy, E::RollBack, S::RollingBack),
    (S::RunningPostCopy, E::GuestLost, S::Error),
    (S::RollingBack, E::Retried, S::Accepted),
    (S::RollingBack, E::RolledBackFailed, S::Failed),
    (S::RollingBack, E::RolledBackCancelled, S::Cancelled),
    (S::RollingBack, E::SwitchedOver, S::PostMigrating), // Someone moved it by hand meanwhile: the server follows the guest.
    (S::RollingBack, E::GuestLost, S::Error),
    (S::PostMigrating, E::Finished, S::Completed), // No edge leads back: the guest lives on the destination.
    (S::PostMigrating, E::GuestLost, S::Error),
];

/// The status after `event`, or `None` if the edge is illegal.
pub fn next(from: MigrationStatus, event: Event) -> Option<MigrationStatus> {
    EDGES.iter().find(|(f, e, _)| (*f, *e) == (from, event)).map(|&(_, _, to)| to)
}

impl MigrationStatus {
    /// Whether nothing follows.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Error)
    }

    /// Whether a caller below microversion 2.34 still waits for the outcome of the prechecks.
    pub const fn is_precheck(self) -> bool {
        matches!(self, Self::Accepted)
    }

    /// Whether the migration holds its claim and its slots.
    pub const fn holds_claim(self) -> bool {
        matches!(self, Self::Preparing | Self::Running | Self::RunningPostCopy | Self::PostMigrating | Self::RollingBack)
    }

    /// Whether libvirt may have a job for it.
    pub const fn may_have_job(self) -> bool {
        matches!(self, Self::Running | Self::RunningPostCopy)
    }

    /// The status that Nova's API shows for it.
    pub const fn in_api(self) -> &'static str {
        match self {
            Self::RollingBack => Self::Running.as_str(),
            other => other.as_str(),
        }
    }

    /// Whether `/servers/{id}/migrations` lists it (`nova/compute/api.py`, `get_migrations_in_progress_by_instance`).
    pub const fn in_progress_for_api(self) -> bool {
        matches!(self, Self::Queued | Self::Preparing | Self::Running | Self::PostMigrating | Self::RollingBack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn final_statuses_have_no_way_out_and_all_others_reach_one() {
        for &status in S::ALL {
            let exits = EDGES.iter().filter(|(from, ..)| *from == status).count();
            assert_eq!(exits == 0, status.is_final(), "{status}");
        }
    }

    #[test]
    fn every_status_but_the_first_can_be_reached() {
        for &status in S::ALL {
            assert!(status == S::Accepted || EDGES.iter().any(|(.., to)| *to == status), "{status}");
        }
    }

    #[test]
    fn an_edge_is_listed_once() {
        for (i, (from, event, _)) in EDGES.iter().enumerate() {
            assert!(!EDGES[i + 1..].iter().any(|(f, e, _)| (f, e) == (from, event)), "{from} {event:?}");
        }
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        proptest::collection::vec(proptest::sample::select(EDGES.iter().map(|(_, e, _)| *e).collect::<Vec<_>>()), 0..40)
    }

    proptest! {
        /// The model: flags that say what a migration may not do any more, kept beside the table on random walks.
        #[test]
        fn on_any_walk_what_cannot_be_taken_back_is_not_taken_back(walk in events()) {
            let (mut status, mut granted, mut switched) = (S::Accepted, false, false);
            for event in walk {
                let Some(to) = next(status, event) else { continue };
                granted |= event == E::StartGranted;
                switched |= event == E::SwitchedOver;
                if event == E::Retried { granted = false; }
                prop_assert!(!switched || matches!(to, S::PostMigrating | S::Completed | S::Error), "{status} {event:?} {to}");
                prop_assert!(to != S::Completed || switched, "completed without the guest seen on the destination");
                prop_assert!(!to.may_have_job() || granted, "a job without a grant");
                prop_assert!(!to.holds_claim() || status.holds_claim() || event == E::Claimed, "a claim out of nothing");
                status = to;
            }
        }
    }
}
