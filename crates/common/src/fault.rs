//! Why a migration was refused or failed: Nova's exception classes with Nova's texts.
//!
//! A [`Fault`] travels: an agent answers with one, the conductor stores it on the migration, the server and the instance
//! action, the API maps its class to a status. The class decides, the message is for people, so a fault is just these two. Texts
//! begin with Nova's own (`nova/exception.py`); where Nova says too little to act on, the host and what it has follow.
//!
//! *Adding one:* a variant of [`FaultClass`], a constructor on [`Fault`], and a line in each `match` that the compiler then asks for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{HostName, ServerId};
use crate::names;
use crate::power::PowerAction;

/// Nova's exception classes that live migration can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultClass {
    /// A service that is needed does not answer.
    ComputeServiceUnavailable,
    /// Source and destination have different hypervisors.
    InvalidHypervisorType,
    /// The destination's CPU cannot run the guest.
    InvalidCpuInfo,
    /// The destination is the source.
    UnableToMigrateToSelf,
    /// The destination's hypervisor is older than the guest needs.
    DestinationHypervisorTooOld,
    /// No host passed.
    NoValidHost,
    /// The bound on tries was reached.
    MaxRetriesExceeded,
    /// Block migration was asked for on storage that both hosts share.
    InvalidLocalStorage,
    /// Shared storage was asked for where there is none.
    InvalidSharedStorage,
    /// A host's libvirt does not answer.
    HypervisorUnavailable,
    /// Any other check said no.
    MigrationPreCheckError,
    /// The migration failed after it was accepted.
    MigrationError,
    /// It was taken back by request.
    MigrationAborted,
    /// The guest is in a state that cannot be migrated.
    InstanceInvalidState,
    /// No such server.
    InstanceNotFound,
    /// No such compute host.
    ComputeHostNotFound,
    /// The guest runs on no host any more.
    InstanceLost,
    /// A power action failed. Stands for Nova's `InstancePowerOffFailure`, `InstanceRebootFailure` and their like: the text says which.
    InstancePowerFailure,
    /// Asked for something that is not built (yet).
    NotImplemented,
    /// This side has no connection to the message broker: says nothing about anybody else.
    MessageDeliveryFailure,
    /// Two peers do not speak a common version of the messages.
    UnsupportedVersion,
    /// Anything else: a defect, a lost database, a word from a newer peer.
    Unexpected,
}
names!("exception class", FaultClass {
    ComputeServiceUnavailable = "ComputeServiceUnavailable",
    InvalidHypervisorType = "InvalidHypervisorType",
    InvalidCpuInfo = "InvalidCPUInfo",
    UnableToMigrateToSelf = "UnableToMigrateToSelf",
    DestinationHypervisorTooOld = "DestinationHypervisorTooOld",
    NoValidHost = "NoValidHost",
    MaxRetriesExceeded = "MaxRetriesExceeded",
    InvalidLocalStorage = "InvalidLocalStorage",
    InvalidSharedStorage = "InvalidSharedStorage",
    HypervisorUnavailable = "HypervisorUnavailable",
    MigrationPreCheckError = "MigrationPreCheckError",
    MigrationError = "MigrationError",
    MigrationAborted = "MigrationAborted",
    InstanceInvalidState = "InstanceInvalidState",
    InstanceNotFound = "InstanceNotFound",
    ComputeHostNotFound = "ComputeHostNotFound",
    InstanceLost = "InstanceLost",
    InstancePowerFailure = "InstancePowerFailure",
    NotImplemented = "NotImplemented",
    MessageDeliveryFailure = "MessageDeliveryFailure",
    UnsupportedVersion = "UnsupportedVersion",
    Unexpected = "Unexpected",
});

impl FaultClass {
    /// The class that a stored or received name stands for; a name we do not know is [`FaultClass::Unexpected`].
    pub fn from_name(name: &str) -> Self {
        name.parse().unwrap_or(Self::Unexpected)
    }

    /// The errors of the prechecks that the conductor knows (Nova: the first `except` of `_live_migrate` in
    /// `nova/conductor/manager.py`): the caller gets them as they are. Everything else is wrapped as `MigrationError`.
    pub const fn is_precheck(self) -> bool {
        match self {
            Self::ComputeServiceUnavailable
            | Self::InvalidHypervisorType
            | Self::InvalidCpuInfo
            | Self::UnableToMigrateToSelf
            | Self::DestinationHypervisorTooOld
            | Self::NoValidHost
            | Self::MaxRetriesExceeded
            | Self::InvalidLocalStorage
            | Self::InvalidSharedStorage
            | Self::HypervisorUnavailable
            | Self::MigrationPreCheckError
            | Self::InstanceInvalidState
            | Self::ComputeHostNotFound => true,
            Self::MigrationError
            | Self::MigrationAborted
            | Self::InstanceNotFound
            | Self::InstanceLost
            | Self::InstancePowerFailure
            | Self::NotImplemented
            | Self::MessageDeliveryFailure
            | Self::UnsupportedVersion
            | Self::Unexpected => false,
        }
    }

    /// Whether another destination may fare better. Nova retries on its `Invalid` classes and `MigrationPreCheckError`
    /// (`nova/conductor/tasks/live_migrate.py`, `_find_destination`); a host that went away or whose storage is laid out
    /// differently is no reason to give up on the others either.
    pub const fn another_host_may_do(self) -> bool {
        match self {
            Self::ComputeServiceUnavailable
            | Self::InvalidHypervisorType
            | Self::InvalidCpuInfo
            | Self::UnableToMigrateToSelf
            | Self::DestinationHypervisorTooOld
            | Self::InvalidLocalStorage
            | Self::InvalidSharedStorage
            | Self::HypervisorUnavailable
            | Self::MigrationPreCheckError
            | Self::UnsupportedVersion
            | Self::ComputeHostNotFound => true,
            Self::NoValidHost
            | Self::MaxRetriesExceeded
            | Self::MigrationError
            | Self::MigrationAborted
            | Self::InstanceInvalidState
            | Self::InstanceNotFound
            | Self::InstanceLost
            | Self::InstancePowerFailure
            | Self::NotImplemented
            | Self::MessageDeliveryFailure
            | Self::Unexpected => false,
        }
    }

    /// The `code` of the server's fault.
    pub const fn code(self) -> i32 {
        match self {
            Self::ComputeServiceUnavailable
            | Self::InvalidHypervisorType
            | Self::InvalidCpuInfo
            | Self::UnableToMigrateToSelf
            | Self::DestinationHypervisorTooOld
            | Self::MigrationAborted
            | Self::InstanceInvalidState => 400,
            Self::InstanceNotFound | Self::ComputeHostNotFound => 404,
            Self::NotImplemented => 501,
            Self::NoValidHost
            | Self::MaxRetriesExceeded
            | Self::InvalidLocalStorage
            | Self::InvalidSharedStorage
            | Self::HypervisorUnavailable
            | Self::MigrationPreCheckError
            | Self::MigrationError
            | Self::InstanceLost
            | Self::InstancePowerFailure
            | Self::MessageDeliveryFailure
            | Self::UnsupportedVersion
            | Self::Unexpected => 500,
        }
    }
}

/// A class and a text. See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Decides what happens.
    #[serde(deserialize_with = "class_by_name")]
    pub class: FaultClass,
    /// For people; begins with Nova's text.
    pub message: String,
}

fn class_by_name<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<FaultClass, D::Error> {
    Ok(FaultClass::from_name(&String::deserialize(deserializer)?))
}

impl Fault {
    fn new(class: FaultClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// Takes a stored fault back.
    pub fn from_stored(class: &str, message: String) -> Self {
        Self::new(FaultClass::from_name(class), message)
    }

    /// A service does not answer, or is said to be down; `why` says which.
    pub fn compute_service_unavailable(host: &HostName, why: impl fmt::Display) -> Self {
        let text = format!("Compute service of {host} is unavailable at this time. {why}");
        Self::new(FaultClass::ComputeServiceUnavailable, text.trim_end())
    }

    /// The hypervisors differ. The gap in Nova's sentence is real.
    pub fn invalid_hypervisor_type(host: &HostName, found: &str, needed: &str) -> Self {
        Self::new(
            FaultClass::InvalidHypervisorType,
            format!("The supplied hypervisor type of is invalid. {host} runs {found}, the server needs {needed}."),
        )
    }

    /// libvirt on the destination refuses the guest's CPU.
    pub fn invalid_cpu_info(reason: impl fmt::Display) -> Self {
        Self::new(FaultClass::InvalidCpuInfo, format!("Unacceptable CPU info: {reason}"))
    }

    /// The destination is the source.
    pub fn unable_to_migrate_to_self(server: ServerId, host: &HostName) -> Self {
        Self::new(FaultClass::UnableToMigrateToSelf, format!("Unable to migrate instance ({server}) to current host ({host})."))
    }

    /// The destination's hypervisor is older than the source's, or lacks the guest's machine type.
    pub fn destination_hypervisor_too_old(reason: impl fmt::Display) -> Self {
        Self::new(
            FaultClass::DestinationHypervisorTooOld,
            format!("The instance requires a newer hypervisor version than has been provided. {reason}"),
        )
    }

    /// No host passed; `refusals` says why each was refused.
    pub fn no_valid_host(refusals: impl fmt::Display) -> Self {
        let text = format!("No valid host was found. There are not enough hosts available. {refusals}");
        Self::new(FaultClass::NoValidHost, text.trim_end())
    }

    /// `migrate_max_retries` was reached; `refusals` says why each host was refused.
    pub fn max_retries_exceeded(tries: usize, server: ServerId, refusals: impl fmt::Display) -> Self {
        Self::new(
            FaultClass::MaxRetriesExceeded,
            format!(
                "Exceeded maximum number of retries. Exceeded max scheduling retries {tries} for instance {server} during live \
                 migration. {refusals}"
            ),
        )
    }

    /// Block migration was asked for, but `disks` are on storage that both hosts share.
    pub fn invalid_local_storage(source: &HostName, disks: impl fmt::Display) -> Self {
        Self::new(
            FaultClass::InvalidLocalStorage,
            format!("{source} is not on local storage: Block migration can not be used with shared storage. {disks}"),
        )
    }

    /// Shared storage was asked for, but `disks` are not shared.
    pub fn invalid_shared_storage(source: &HostName, disks: impl fmt::Display) -> Self {
        Self::new(
            FaultClass::InvalidSharedStorage,
            format!(
                "{source} is not on shared storage: Shared storage live-migration requires either shared storage or \
                 boot-from-volume with no local disks. {disks}"
            ),
        )
    }

    /// libvirt on `host` does not answer.
    pub fn hypervisor_unavailable(host: &HostName, why: impl fmt::Display) -> Self {
        Self::new(FaultClass::HypervisorUnavailable, format!("Connection to the hypervisor is broken on host: {host}. {why}"))
    }

    /// Any other check said no.
    pub fn precheck(reason: impl fmt::Display) -> Self {
        Self::new(FaultClass::MigrationPreCheckError, format!("Migration pre-check error: {reason}"))
    }

    /// The destination lacks memory (Nova: `_check_destination_has_enough_memory`).
    pub fn lack_of_memory(server: ServerId, host: &HostName, available_mb: i64, needed_mb: i64) -> Self {
        Self::precheck(format_args!(
            "Unable to migrate {server} to {host}: Lack of memory(host:{available_mb} <= instance:{needed_mb})"
        ))
    }

    /// The migration failed after it was accepted, or for a reason that is no precheck.
    pub fn migration_error(reason: impl fmt::Display) -> Self {
        Self::new(FaultClass::MigrationError, format!("Migration error: {reason}"))
    }

    /// Taken back by request.
    pub fn aborted(by: impl fmt::Display) -> Self {
        Self::new(FaultClass::MigrationAborted, format!("Live migration aborted by {by}."))
    }

    /// The guest is in a state that cannot be migrated.
    pub fn instance_invalid_state(server: ServerId, attribute: &str, state: impl fmt::Display) -> Self {
        Self::new(
            FaultClass::InstanceInvalidState,
            format!("Instance {server} in {attribute} {state}. Cannot live migrate while the instance is in this state."),
        )
    }

    /// No such server.
    pub fn instance_not_found(server: impl fmt::Display) -> Self {
        Self::new(FaultClass::InstanceNotFound, format!("Instance {server} could not be found."))
    }

    /// No such compute host.
    pub fn compute_host_not_found(host: impl fmt::Display) -> Self {
        Self::new(FaultClass::ComputeHostNotFound, format!("Compute host {host} could not be found."))
    }

    /// Neither host has the guest any more.
    pub fn instance_lost(server: ServerId, source: &HostName, destination: &HostName) -> Self {
        Self::new(
            FaultClass::InstanceLost,
            format!(
                "Instance {server} was lost during live migration: neither {source} nor {destination} runs it. It was not \
                 restarted; check both hosts, then start it from its disks."
            ),
        )
    }

    /// A power action failed, or nobody can tell whether it did.
    pub fn power_action(action: PowerAction, reason: impl fmt::Display) -> Self {
        Self::new(FaultClass::InstancePowerFailure, format!("{}: {reason}", action.rule().failed))
    }

    /// Asked for something that is not built.
    pub fn not_implemented(what: impl fmt::Display) -> Self {
        Self::new(FaultClass::NotImplemented, format!("Not implemented: {what}"))
    }

    /// This side has no connection to the message broker.
    pub fn message_delivery_failure(why: impl fmt::Display) -> Self {
        Self::new(FaultClass::MessageDeliveryFailure, format!("No connection to the message broker: {why}"))
    }

    /// The peer's messages are of a major version that this side does not speak.
    pub fn unsupported_version(theirs: impl fmt::Display, ours: impl fmt::Display) -> Self {
        Self::new(
            FaultClass::UnsupportedVersion,
            format!("Message version {theirs} is not supported here (this side speaks {ours}): upgrade the older of the two."),
        )
    }

    /// A defect or a lost dependency.
    pub fn unexpected(what: impl fmt::Display) -> Self {
        Self::new(FaultClass::Unexpected, what.to_string())
    }

    /// What the conductor hands on: prechecks as they are, anything else as `MigrationError`.
    #[must_use]
    pub fn for_caller(self) -> Self {
        match self.class {
            class if class.is_precheck() => self,
            FaultClass::MigrationError
            | FaultClass::MigrationAborted
            | FaultClass::InstanceLost
            | FaultClass::InstancePowerFailure
            | FaultClass::NotImplemented
            | FaultClass::InstanceNotFound => self,
            _ => Self::migration_error(self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_from_a_newer_peer_is_unexpected_and_keeps_its_text() {
        let fault: Fault = serde_json::from_str(r#"{"class":"FromTheFuture","message":"no"}"#).unwrap();
        assert_eq!(fault, Fault::unexpected("no"));
    }

    #[test]
    fn only_what_is_no_precheck_is_wrapped_for_the_caller() {
        let precheck = Fault::precheck("x");
        assert_eq!(precheck.clone().for_caller(), precheck);
        assert_eq!(Fault::unexpected("the database is gone").for_caller(), Fault::migration_error("the database is gone"));
    }
}
