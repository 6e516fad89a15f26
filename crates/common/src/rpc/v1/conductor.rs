//! What the conductor receives, and what it answers.

use serde::{Deserialize, Serialize};

use super::compute::{GrantRequest, OfAttempt};
use super::facts::{GuestState, HostFacts, JobKind, Marker};
use super::power::PowerGrantRequest;
use crate::host::HostInventory;
use crate::ids::{Attempt, Incarnation, MigrationId, PowerActionId, Revision, ServerId};
use crate::migration::{Decision, JobResult, Progress};
use crate::server::Flavor;

/// Messages to any conductor. The comment at each says who sends it and what the reply holds; *cast* has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum ToConductor {
    /// API: a migration was accepted. *Cast.*
    MigrateServer(MigrateServer),
    /// API or conductor: something about this migration's row changed; look at it. *Cast.*
    Wake {
        /// Which one.
        migration: MigrationId,
    },
    /// Agent, at its start and after each reconnection: [`HostWelcome`].
    HostUp(HostUp),
    /// Agent, every `report_interval`. *Cast.*
    Heartbeat {
        /// Its life.
        incarnation: Incarnation,
    },
    /// Agent: domains as they are now. *Cast.*
    Domains(DomainsReport),
    /// Agent, before what cannot be taken back: [`super::compute::Granted`].
    Grant(GrantRequest),
    /// API: a power action was accepted. *Cast.* Since 1.2.
    WakePower {
        /// Which one.
        power_action: PowerActionId,
    },
    /// Agent, before each deed of a power action: nothing. Since 1.2.
    GrantPower(PowerGrantRequest),
    /// Agent: how the copy goes. *Cast*, lossy.
    Progress(ProgressReport),
    /// Agent: it decided something about a copy under way. *Cast.* Since 1.2.
    Decided(DecisionReport),
    /// Agent: something happened to an attempt. *Cast.*
    Report(MigrationReport),
    /// API: ask all agents how it stands with their hosts: [`super::doctor::FleetDiagnosis`]. Since 1.2.
    Diagnose,
}

impl ToConductor {
    /// The kind's name, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MigrateServer(_) => "migrate_server",
            Self::Wake { .. } => "wake",
            Self::HostUp(_) => "host_up",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Domains(_) => "domains",
            Self::Grant(_) => "grant",
            Self::WakePower { .. } => "wake_power",
            Self::GrantPower(_) => "grant_power",
            Self::Progress(_) => "progress",
            Self::Decided(_) => "decided",
            Self::Report(_) => "report",
            Self::Diagnose => "diagnose",
        }
    }
}

/// Nova's `migrate_server`, with the three arguments that choose between live, cold and the rest. What is to be done in detail
/// is on the migration's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateServer {
    /// The migration.
    pub migration: MigrationId,
    /// Without stopping the guest.
    pub live: bool,
    /// From its image again (evacuate).
    pub rebuild: bool,
    /// To another size (cold migration and resize).
    pub flavor: Option<Flavor>,
}

/// An agent says that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostUp {
    /// Its life.
    pub incarnation: Incarnation,
    /// What the host is and has.
    pub inventory: HostInventory,
    /// All its domains.
    pub domains: DomainsReport,
}

/// The conductor's answer: what the agent must take up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostWelcome {
    /// Open migrations that may have a job on this host, as their source.
    pub watch: Vec<Watch>,
}

/// A job to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Which attempt.
    #[serde(flatten)]
    pub of: OfAttempt,
    /// The row's version, for the report at the end.
    pub revision: Revision,
    /// Whether an abort was asked for: an earlier life of the agent may have been told. Since 1.1.
    #[serde(default)]
    pub abort_requested: bool,
    /// Whether force-complete was asked for. Since 1.1.
    #[serde(default)]
    pub force_complete_requested: bool,
    /// Whether it was started as one that cannot become post-copy, although that is permitted. Since 1.2.
    #[serde(default)]
    pub no_post_copy: bool,
    /// The copy's share of the links, MiB/s; none: they have no limit. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_mib: Option<u64>,
}

/// What a host's libvirt has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainsReport {
    /// The life that looked.
    pub incarnation: Incarnation,
    /// Counts up within a life: an older report never overwrites a newer one.
    pub sequence: i64,
    /// Whether `domains` is all there is (then what is missing is gone), or only what changed.
    pub complete: bool,
    /// The domains.
    pub domains: Vec<DomainReport>,
    /// Domains that are gone, when not `complete`.
    pub gone: Vec<ServerId>,
    /// Domains that are there and could not be read: nothing is known of them but that. Since 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<ServerId>,
}

/// One domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainReport {
    /// Its UUID.
    pub server: ServerId,
    /// Its libvirt name.
    pub domain_name: String,
    /// The server's name: Nova's from the metadata, else the domain's title, else its name.
    pub display_name: String,
    /// Its state.
    pub state: GuestState,
    /// libvirt's job on it.
    pub job: Option<JobKind>,
    /// Whether it is defined.
    pub persistent: bool,
    /// The migration that brought it here.
    pub marker: Option<Marker>,
    /// Its size.
    pub flavor: Flavor,
    /// Project and user from Nova's metadata.
    pub owner: Option<Owner>,
}

/// Whom Nova's metadata names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The project's id.
    pub project_id: String,
    /// The user's id.
    pub user_id: String,
}

/// How the copy goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// Which attempt.
    #[serde(flatten)]
    pub of: OfAttempt,
    /// The numbers.
    pub progress: Progress,
}

/// What the source's agent decided about a copy under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionReport {
    /// Which attempt.
    #[serde(flatten)]
    pub of: OfAttempt,
    /// What, when and why.
    pub decision: Decision,
    /// Further decisions of the same moment, in their order. Since 1.5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<Decision>,
}

/// Something happened to an attempt, with what the source sees since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationReport {
    /// The migration.
    pub migration: MigrationId,
    /// The attempt.
    pub attempt: Attempt,
    /// The guest.
    pub server: ServerId,
    /// The version of the row that the agent last heard of: the facts were seen after it.
    pub revision: Option<Revision>,
    /// What the host sees now.
    pub facts: HostFacts,
    /// libvirt's account of the job, if it could still be had.
    pub result: Option<JobResult>,
    /// Why nothing was started, if that is what happened.
    pub not_started: Option<String>,
}
