//! libvirt's numbers for a domain's state and reason.

use std::ffi::c_int;

use virt::sys;

use crate::driver::{PauseReason, RunState};

/// What `virDomainGetState` says.
pub(super) fn run_state(state: c_int, reason: c_int) -> RunState {
    match (state.cast_unsigned(), reason.cast_unsigned()) {
        (sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED, reason) => match reason {
            sys::VIR_DOMAIN_RUNNING_POSTCOPY => RunState::RunningPostCopy,
            sys::VIR_DOMAIN_RUNNING_POSTCOPY_FAILED => RunState::RunningPostCopyFailed,
            _ => RunState::Running,
        },
        // "Shutdown" is a guest that is about to end: its QEMU is still there.
        (sys::VIR_DOMAIN_SHUTDOWN, _) => RunState::Running,
        (sys::VIR_DOMAIN_PAUSED, reason) => RunState::Paused(pause_reason(reason)),
        (sys::VIR_DOMAIN_SHUTOFF, _) => RunState::ShutOff,
        (sys::VIR_DOMAIN_CRASHED, _) => RunState::Crashed,
        (sys::VIR_DOMAIN_PMSUSPENDED, _) => RunState::Suspended,
        // "No state" and states from the future: there is a QEMU and nobody knows more.
        _ => RunState::Paused(PauseReason::Other),
    }
}

fn pause_reason(reason: sys::virDomainPausedReason) -> PauseReason {
    match reason {
        sys::VIR_DOMAIN_PAUSED_MIGRATION => PauseReason::Migration,
        sys::VIR_DOMAIN_PAUSED_STARTING_UP => PauseReason::StartingUp,
        sys::VIR_DOMAIN_PAUSED_POSTCOPY => PauseReason::PostCopy,
        sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED => PauseReason::PostCopyFailed,
        sys::VIR_DOMAIN_PAUSED_API_ERROR => PauseReason::ApiError,
        _ => PauseReason::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_that_a_migration_can_leave_is_told_apart() {
        for (state, reason, expected) in [
            (1, 1, RunState::Running),
            (1, 10, RunState::RunningPostCopy),
            (1, 11, RunState::RunningPostCopyFailed),
            (2, 0, RunState::Running),
            (3, 1, RunState::Paused(PauseReason::Other)),
            (3, 2, RunState::Paused(PauseReason::Migration)),
            (3, 5, RunState::Paused(PauseReason::Other)),
            (3, 11, RunState::Paused(PauseReason::StartingUp)),
            (3, 12, RunState::Paused(PauseReason::PostCopy)),
            (3, 13, RunState::Paused(PauseReason::PostCopyFailed)),
            (3, 14, RunState::Paused(PauseReason::ApiError)),
            (4, 0, RunState::Running),
            (5, 4, RunState::ShutOff),
            (6, 0, RunState::Crashed),
            (7, 0, RunState::Suspended),
            (0, 0, RunState::Paused(PauseReason::Other)),
            (99, 0, RunState::Paused(PauseReason::Other)),
        ] {
            assert_eq!(run_state(state, reason), expected, "{state} {reason}");
        }
    }
}
