//! What a server is in: Nova's three state attributes, and the API status that follows from two of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text in the database or in a message that names none of the known values.
#[derive(Debug, thiserror::Error)]
#[error("{value:?} is no {what}")]
pub struct UnknownName {
    /// What was expected, for instance `vm_state`.
    pub what: &'static str,
    /// The text that was found.
    pub value: String,
}

/// Gives an enum its one spelling per variant: `as_str`, `Display`, `FromStr` and the list of all variants.
#[macro_export]
macro_rules! names {
    ($what:literal, $type:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every variant, in the order of the definition.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The field's own name for it, as stored and as sent.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::server::UnknownName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::server::UnknownName { what: $what, value: text.to_owned() }),
                }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// The stable state of a server (`nova/compute/vm_states.py`), as far as libvirt domains can be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VmState {
    /// The guest is meant to run.
    Active,
    /// The guest is paused by its owner.
    Paused,
    /// The guest is shut off.
    Stopped,
    /// An operator said so (`os-resetState`), or the guest is lost. Never set while the guest runs.
    Error,
    /// The server is gone; the row stays for a while for listings with `changes-since`.
    Deleted,
}
names!("vm_state", VmState { Active = "active", Paused = "paused", Stopped = "stopped", Error = "error", Deleted = "deleted" });

/// What is being done to a server (`nova/compute/task_states.py`); none when idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// A live migration is under way.
    Migrating,
    /// Its CPUs are being stopped.
    Pausing,
    /// They are being let go on.
    Unpausing,
    /// It is being started.
    PoweringOn,
    /// It is being shut down.
    PoweringOff,
    /// It is being shut down and started again.
    Rebooting,
    /// It is being ended and started again.
    RebootingHard,
    /// It is being removed.
    Deleting,
}
names!("task_state", TaskState {
    Migrating = "migrating",
    Pausing = "pausing",
    Unpausing = "unpausing",
    PoweringOn = "powering-on",
    PoweringOff = "powering-off",
    Rebooting = "rebooting",
    RebootingHard = "rebooting_hard",
    Deleting = "deleting",
});

/// What the hypervisor last said of the guest (`nova/compute/power_state.py`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerState {
    /// Not known.
    NoState,
    /// The guest's CPUs run.
    Running,
    /// The guest is there, its CPUs stand.
    Paused,
    /// The guest is off.
    Shutdown,
    /// The guest crashed.
    Crashed,
    /// The guest is suspended by itself (ACPI S3).
    Suspended,
}

impl PowerState {
    /// Nova's number for it.
    pub const fn code(self) -> i16 {
        match self {
            Self::NoState => 0,
            Self::Running => 1,
            Self::Paused => 3,
            Self::Shutdown => 4,
            Self::Crashed => 6,
            Self::Suspended => 7,
        }
    }

    /// The state that Nova's number stands for.
    pub const fn from_code(code: i16) -> Option<Self> {
        Some(match code {
            0 => Self::NoState,
            1 => Self::Running,
            3 => Self::Paused,
            4 => Self::Shutdown,
            6 => Self::Crashed,
            7 => Self::Suspended,
            _ => return None,
        })
    }
}
names!("power_state", PowerState {
    NoState = "pending",
    Running = "running",
    Paused = "paused",
    Shutdown = "shutdown",
    Crashed = "crashed",
    Suspended = "suspended",
});

/// The `status` that the API shows (`nova/api/openstack/common.py`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerStatus {
    /// Runs.
    Active,
    /// Paused.
    Paused,
    /// Being live-migrated.
    Migrating,
    /// Being shut down and started again.
    Reboot,
    /// Being ended and started again.
    HardReboot,
    /// Shut off.
    Shutoff,
    /// Needs an operator.
    Error,
    /// Gone.
    Deleted,
}
names!("status", ServerStatus {
    Active = "ACTIVE",
    Paused = "PAUSED",
    Migrating = "MIGRATING",
    Reboot = "REBOOT",
    HardReboot = "HARD_REBOOT",
    Shutoff = "SHUTOFF",
    Error = "ERROR",
    Deleted = "DELETED",
});

impl ServerStatus {
    /// The status that a server with these two attributes shows.
    pub const fn of(vm_state: VmState, task_state: Option<TaskState>) -> Self {
        match (vm_state, task_state) {
            (VmState::Active | VmState::Paused, Some(TaskState::Migrating)) => Self::Migrating,
            (VmState::Active, Some(TaskState::Rebooting)) => Self::Reboot,
            (VmState::Active, Some(TaskState::RebootingHard)) => Self::HardReboot,
            (VmState::Active, _) => Self::Active,
            (VmState::Paused, _) => Self::Paused,
            (VmState::Stopped, _) => Self::Shutoff,
            (VmState::Error, _) => Self::Error,
            (VmState::Deleted, _) => Self::Deleted,
        }
    }

    /// Whether the API shows `progress` beside this status.
    pub const fn has_progress(self) -> bool {
        matches!(self, Self::Active | Self::Migrating)
    }

    /// Whether the API shows `fault` beside this status.
    pub const fn has_fault(self) -> bool {
        matches!(self, Self::Error | Self::Deleted)
    }
}

/// The size and the name of a server's flavor, kept with the server: domains come from hosts, not from a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flavor {
    /// The name: Nova's own when the domain's metadata has one, else made from the size.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: i32,
    /// Memory in MiB.
    pub memory_mb: i32,
    /// Root disk in GiB, 0 if unknown.
    pub root_gb: i32,
    /// Further local disks in GiB.
    pub ephemeral_gb: i32,
    /// Swap in MiB.
    pub swap_mb: i32,
}

/// How an attribute that blocks an action is shown in a message.
pub fn shown<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "None".to_owned(), |value| value.to_string())
}

/// Parses a stored name or says which column holds nonsense.
pub fn parse_stored<T: FromStr<Err = UnknownName>>(text: &str) -> Result<T, UnknownName> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrating_shows_for_active_and_paused_servers_only() {
        for &vm_state in VmState::ALL {
            let shows = ServerStatus::of(vm_state, Some(TaskState::Migrating)) == ServerStatus::Migrating;
            assert_eq!(shows, matches!(vm_state, VmState::Active | VmState::Paused), "{vm_state}");
        }
    }

    #[test]
    fn a_reboot_shows_for_active_servers_and_no_other_power_action_shows() {
        for &vm_state in VmState::ALL {
            for &task_state in TaskState::ALL {
                let shown = ServerStatus::of(vm_state, Some(task_state));
                match (vm_state, task_state) {
                    (VmState::Active, TaskState::Rebooting) => assert_eq!(shown, ServerStatus::Reboot),
                    (VmState::Active, TaskState::RebootingHard) => assert_eq!(shown, ServerStatus::HardReboot),
                    (VmState::Active | VmState::Paused, TaskState::Migrating) => {}
                    _ => assert_eq!(shown, ServerStatus::of(vm_state, None), "{vm_state} {task_state}"),
                }
            }
        }
    }

    #[test]
    fn every_power_state_survives_its_number() {
        for &state in PowerState::ALL {
            assert_eq!(PowerState::from_code(state.code()), Some(state));
        }
        assert_eq!(PowerState::from_code(2), None);
    }
}
