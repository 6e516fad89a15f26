//! What one host sees of one guest: the only ground for deciding how a migration ended.

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, Incarnation, MigrationId};
use crate::names;
use crate::server::PowerState;

/// The answer to `get_facts`, also part of a report: seen after the question (or the grant) that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The agent's life that looked.
    pub incarnation: Incarnation,
    /// The domain, none if libvirt has none of this UUID.
    pub guest: Option<GuestFacts>,
    /// libvirt's job on the domain.
    pub job: Option<JobKind>,
    /// What this life of the agent did with the attempt.
    pub call: CallState,
}

/// A domain that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestFacts {
    /// Its state.
    pub state: GuestState,
    /// Whether it is defined and so outlives its QEMU.
    pub persistent: bool,
    /// The migration that brought it here, from its metadata.
    pub marker: Option<Marker>,
}

/// `<drover:migration>` in a domain's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The migration.
    pub migration: MigrationId,
    /// Its attempt.
    pub attempt: Attempt,
}

/// libvirt's domain state and reason (`virDomainGetState`), as far as they matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuestState {
    /// CPUs run, nothing else to say.
    Running,
    /// CPUs run on the destination while memory still comes (`VIR_DOMAIN_RUNNING_POSTCOPY`).
    RunningPostCopy,
    /// The same, and the stream broke (`VIR_DOMAIN_RUNNING_POSTCOPY_FAILED`).
    RunningPostCopyFailed,
    /// CPUs stand for a reason that has nothing to do with migration: the owner's wish, an I/O error.
    Paused,
    /// CPUs stand because of a migration (`VIR_DOMAIN_PAUSED_MIGRATION`, or an incoming QEMU that has not got its state).
    PausedMigration,
    /// The source's CPUs stand since post-copy began (`VIR_DOMAIN_PAUSED_POSTCOPY`).
    PausedPostCopy,
    /// The same, and the stream broke (`VIR_DOMAIN_PAUSED_POSTCOPY_FAILED`).
    PausedPostCopyFailed,
    /// Defined, not running.
    ShutOff,
    /// Crashed and kept by libvirt.
    Crashed,
    /// Suspended by the guest itself.
    Suspended,
}
names!("guest state", GuestState {
    Running = "running",
    RunningPostCopy = "running (post-copy)",
    RunningPostCopyFailed = "running (post-copy failed)",
    Paused = "paused",
    PausedMigration = "paused (migration)",
    PausedPostCopy = "paused (post-copy)",
    PausedPostCopyFailed = "paused (post-copy failed)",
    ShutOff = "shut off",
    Crashed = "crashed",
    Suspended = "suspended",
});

impl GuestState {
    /// Nova's power state for it.
    pub const fn power_state(self) -> PowerState {
        match self {
            Self::Running | Self::RunningPostCopy | Self::RunningPostCopyFailed => PowerState::Running,
            Self::Paused | Self::PausedMigration | Self::PausedPostCopy | Self::PausedPostCopyFailed => PowerState::Paused,
            Self::ShutOff => PowerState::Shutdown,
            Self::Crashed => PowerState::Crashed,
            Self::Suspended => PowerState::Suspended,
        }
    }

    /// Whether there is a QEMU.
    pub const fn is_active(self) -> bool {
        !matches!(self, Self::ShutOff | Self::Crashed)
    }
}

/// libvirt's job on a domain (`VIR_DOMAIN_JOB_OPERATION_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// It is being migrated away.
    MigrationOut,
    /// It is being migrated here.
    MigrationIn,
    /// Anything else: a snapshot, a backup, a dump.
    Other,
}
names!("job kind", JobKind { MigrationOut = "migration out", MigrationIn = "migration in", Other = "other" });

/// What one life of an agent did with one attempt of a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CallState {
    /// It never heard of it.
    Unseen,
    /// It was told to and has not called libvirt yet.
    Pending,
    /// The call to libvirt has not returned.
    InCall,
    /// It watches a job that an earlier life of the agent started.
    Attached,
    /// The call returned, or the job that was watched ended.
    Ended {
        /// libvirt's words, none if it said success.
        error: Option<String>,
        /// Why the agent took the migration back by itself, if it did. Since 1.2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken_back: Option<String>,
    },
}

impl CallState {
    /// The call ended like this, and it was not the agent that ended it.
    pub const fn ended(error: Option<String>) -> Self {
        Self::Ended { error, taken_back: None }
    }
}
