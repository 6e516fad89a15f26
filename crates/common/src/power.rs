//! Power actions: pause, unpause, start, stop, reboot, delete. What each is, in one table.
//!
//! *Adding one:* a variant of [`PowerAction`] and a line in [`PowerAction::rule`]; what is done for it on a host is the agent's table
//! (`crates/compute/src/power/deeds.rs`).

use crate::names;
use crate::server::{TaskState, VmState};

/// What can be done to a server besides moving it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerAction {
    /// Stop its CPUs.
    Pause,
    /// Let them go on.
    Unpause,
    /// Start it.
    Start,
    /// Shut it down; end it when it does not obey.
    Stop,
    /// The same, and start it again.
    RebootSoft,
    /// End it at once and start it again.
    RebootHard,
    /// End it and remove its definition.
    Delete,
}
names!("power action", PowerAction {
    Pause = "pause",
    Unpause = "unpause",
    Start = "start",
    Stop = "stop",
    RebootSoft = "reboot_soft",
    RebootHard = "reboot_hard",
    Delete = "delete",
});

/// What holds for an action; see [`PowerAction::rule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Nova's name of the instance action, also its word in a refusal: `Cannot 'stop' instance …`.
    pub name: &'static str,
    /// Nova's name of the step that the host does.
    pub event: &'static str,
    /// The states in which it may be asked for.
    pub from: &'static [VmState],
    /// What the server shows meanwhile.
    pub task_state: TaskState,
    /// How Nova's text for its failure begins.
    pub failed: &'static str,
}

/// Whatever the guest is.
const ANY: &[VmState] = &[VmState::Active, VmState::Stopped, VmState::Paused, VmState::Error];

impl PowerAction {
    /// Nova's rules (`nova/compute/api.py`, `@check_instance_state`; `nova/compute/manager.py`, `@wrap_instance_event`; `nova/exception.py`).
    pub const fn rule(self) -> Rule {
        use TaskState::{Deleting, Pausing, PoweringOff, PoweringOn, Rebooting, RebootingHard, Unpausing};
        use VmState::{Active, Error, Paused, Stopped};
        let (name, event, from, task_state, failed): (_, _, &'static [VmState], _, _) = match self {
            Self::Pause => ("pause", "compute_pause_instance", &[Active], Pausing, "Failed to pause instance"),
            Self::Unpause => ("unpause", "compute_unpause_instance", &[Paused], Unpausing, "Failed to unpause instance"),
            Self::Start => ("start", "compute_start_instance", &[Stopped], PoweringOn, "Failed to power on instance"),
            Self::Stop => ("stop", "compute_stop_instance", &[Active, Error], PoweringOff, "Failed to power off instance"),
            Self::RebootSoft => ("reboot", "compute_reboot_instance", &[Active], Rebooting, "Failed to reboot instance"),
            Self::RebootHard => ("reboot", "compute_reboot_instance", ANY, RebootingHard, "Failed to reboot instance"),
            Self::Delete => ("delete", "compute_terminate_instance", ANY, Deleting, "Failed to terminate instance"),
        };
        Rule { name, event, from, task_state, failed }
    }

    /// Whether it may be asked for while something else is being done to the server: it then waits for the end of that.
    pub const fn waits_for_others(self) -> bool {
        matches!(self, Self::Delete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `nova/compute/api.py`, as far as libvirt domains can be in these states.
    #[test]
    fn each_action_is_allowed_where_nova_allows_it() {
        let allowed = |action: PowerAction| {
            VmState::ALL.iter().filter(|state| action.rule().from.contains(state)).map(|state| state.as_str()).collect::<Vec<_>>()
        };
        for (action, states) in [
            (PowerAction::Pause, vec!["active"]),
            (PowerAction::Unpause, vec!["paused"]),
            (PowerAction::Start, vec!["stopped"]),
            (PowerAction::Stop, vec!["active", "error"]),
            (PowerAction::RebootSoft, vec!["active"]),
            (PowerAction::RebootHard, vec!["active", "paused", "stopped", "error"]),
            (PowerAction::Delete, vec!["active", "paused", "stopped", "error"]),
        ] {
            assert_eq!(allowed(action), states, "{action}");
        }
    }

    #[test]
    fn each_action_has_a_task_state_of_its_own_and_only_a_delete_waits() {
        for &action in PowerAction::ALL {
            let others = PowerAction::ALL.iter().filter(|other| other.rule().task_state == action.rule().task_state);
            assert_eq!(others.count(), 1, "{action}");
            assert_ne!(action.rule().task_state, TaskState::Migrating);
            assert_eq!(action.waits_for_others(), action == PowerAction::Delete);
        }
    }
}
