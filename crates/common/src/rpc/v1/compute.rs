//! What a compute agent receives, and what it answers.

use serde::{Deserialize, Serialize};

use super::conductor::DomainsReport;
use super::doctor::Diagnose;
use super::guest::{DestinationCheck, GuestDescription, MigrateData, StorageProbe};
use super::image::ImagePiece;
use super::power::PowerOrder;
use crate::ids::{Attempt, HostName, MigrationId, Revision, ServerId};

/// Messages to one host's agent. The comment at each says what the reply holds; *cast* has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum ToCompute {
    /// To the source, first of all: [`GuestDescription`].
    DescribeGuest(AboutGuest),
    /// To a candidate: [`DestinationCheck`].
    CheckCanLiveMigrateDestination(CheckDestination),
    /// To the source, with what the candidate found: [`MigrateData`].
    CheckCanLiveMigrateSource(CheckSource),
    /// To the destination, which makes itself ready: nothing.
    PreLiveMigration(WithData),
    /// To the source: give out a piece of a read-only image that is carried over: [`super::image::ImagePiece`]. Since 1.3.
    ReadImage(PieceOfImage),
    /// To the destination, which has made the file: write the piece: nothing. Since 1.3.
    WriteImage(WriteImage),
    /// To the source: start. *Cast.*
    LiveMigration(WithData),
    /// To the source: look whether an abort is wanted (the row says so). *Cast.*
    LiveMigrationAbort(OfAttempt),
    /// To the source: look whether force-complete is wanted. *Cast.*
    LiveMigrationForceComplete(OfAttempt),
    /// To the source: the copy's share of the links is another now. *Cast.* Since 1.2.
    LiveMigrationBandwidth(Bandwidth),
    /// To the source, whose guest waits in a post-copy that broke: go on with it. *Cast.* Since 1.2.
    RecoverPostCopy(Recovery),
    /// To either: [`super::facts::HostFacts`].
    GetFacts(OfAttempt),
    /// To the destination after the switch-over: an [`Arrival`].
    PostLiveMigrationAtDestination(WithData),
    /// To the destination after the switch-over: write a probe file beside each disk whose file was made there, for the source to
    /// look for before it removes its own: a list of [`super::guest::StorageProbe`]. Since 1.3.
    ProbeStorage(WithData),
    /// To the destination: nobody looks for these probe files any more. *Cast.* Since 1.3.
    ForgetProbes(AboutGuest),
    /// To the source after the switch-over: remove what the guest left there: nothing.
    PostLiveMigration(CleanUp),
    /// To the destination: remove what the attempt left there: nothing.
    RollbackLiveMigrationAtDestination(CleanUp),
    /// To the source: let the guest's CPUs run again: nothing.
    ResumeGuest(OfAttempt),
    /// To the destination, in an ownership conflict: stop the guest's CPUs, destroy nothing: nothing.
    SuspendGuest(OfAttempt),
    /// To either, in an ownership conflict: an operator keeps the other host's copy, remove yours: nothing.
    DiscardGuest(OfAttempt),
    /// To the server's host: do this to the guest, or say how far it is: [`super::power::PowerProgress`]. Since 1.2.
    Power(PowerOrder),
    /// Report your domains now. *Cast.*
    ReportDomains,
    /// How does it stand with your host: [`super::doctor::HostDiagnosis`]. Since 1.2.
    Diagnose(Diagnose),
}

impl ToCompute {
    /// The kind's name, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DescribeGuest(_) => "describe_guest",
            Self::CheckCanLiveMigrateDestination(_) => "check_can_live_migrate_destination",
            Self::CheckCanLiveMigrateSource(_) => "check_can_live_migrate_source",
            Self::PreLiveMigration(_) => "pre_live_migration",
            Self::ReadImage(_) => "read_image",
            Self::WriteImage(_) => "write_image",
            Self::LiveMigration(_) => "live_migration",
            Self::LiveMigrationAbort(_) => "live_migration_abort",
            Self::LiveMigrationForceComplete(_) => "live_migration_force_complete",
            Self::LiveMigrationBandwidth(_) => "live_migration_bandwidth",
            Self::RecoverPostCopy(_) => "recover_post_copy",
            Self::GetFacts(_) => "get_facts",
            Self::PostLiveMigrationAtDestination(_) => "post_live_migration_at_destination",
            Self::ProbeStorage(_) => "probe_storage",
            Self::ForgetProbes(_) => "forget_probes",
            Self::PostLiveMigration(_) => "post_live_migration",
            Self::RollbackLiveMigrationAtDestination(_) => "rollback_live_migration_at_destination",
            Self::ResumeGuest(_) => "resume_guest",
            Self::SuspendGuest(_) => "suspend_guest",
            Self::DiscardGuest(_) => "discard_guest",
            Self::Power(_) => "power",
            Self::ReportDomains => "report_domains",
            Self::Diagnose(_) => "diagnose",
        }
    }
}

/// About one guest, for one migration that has no attempt yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutGuest {
    /// The migration.
    pub migration: MigrationId,
    /// The guest.
    pub server: ServerId,
}

/// About one attempt of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfAttempt {
    /// The migration.
    pub migration: MigrationId,
    /// The attempt; grants are asked for with it.
    pub attempt: Attempt,
    /// The guest.
    pub server: ServerId,
}

/// The question to a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDestination {
    /// The migration.
    pub migration: MigrationId,
    /// The guest.
    pub server: ServerId,
    /// The guest as its source described it.
    pub guest: GuestDescription,
    /// Whether the source's hypervisor may be newer than this one (`skip_hypervisor_version_check_on_lm`).
    pub source_host: HostName,
}

/// The question to the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSource {
    /// The migration.
    pub migration: MigrationId,
    /// The guest.
    pub server: ServerId,
    /// The guest as the source described it at the beginning.
    pub guest: GuestDescription,
    /// The candidate.
    pub destination_host: HostName,
    /// What the candidate found.
    pub found: DestinationCheck,
    /// What was asked for; none lets each disk decide for itself.
    pub block_migration: Option<bool>,
    /// What was asked for, below microversion 2.25.
    pub disk_over_commit: Option<bool>,
}

/// An attempt and all that was agreed on for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithData {
    /// The attempt.
    #[serde(flatten)]
    pub of: OfAttempt,
    /// What was agreed on.
    pub data: MigrateData,
}

/// A copy's share of the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// The attempt.
    #[serde(flatten)]
    pub of: OfAttempt,
    /// MiB/s; none: the links have no limit, only the host's own for one migration holds.
    pub bandwidth_mib: Option<u64>,
}

/// Which piece of which image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceOfImage {
    /// The attempt.
    #[serde(flatten)]
    pub of: OfAttempt,
    /// The disk's target device; its path is looked up in the guest.
    pub target: String,
    /// Where the piece begins, in bytes.
    pub offset: u64,
}

/// A piece to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteImage {
    /// The attempt and what was agreed on for it.
    #[serde(flatten)]
    pub with: WithData,
    /// The disk's target device.
    pub target: String,
    /// The piece.
    pub piece: ImagePiece,
}

/// A post-copy to go on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The attempt and what was agreed on for it.
    #[serde(flatten)]
    pub with: WithData,
    /// How long to wait before the try, milliseconds: grows from try to try.
    pub pause_ms: u64,
}

/// What gives an agent the right to clean up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Authority {
    /// The open migration, at this attempt.
    Migration {
        /// The attempt that the row is at.
        attempt: Attempt,
    },
    /// A `cleanup_debts` row of a migration that is closed.
    Debt {
        /// Its id.
        id: i64,
    },
}

/// The guest has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// On this one guest, also if it has gone off since.
    #[serde(flatten)]
    pub report: DomainsReport,
    /// From libvirt's word that its CPUs run to the agent's first announcement of it, in milliseconds, by the host's clock; none if
    /// there was no announcement, or none by this life of the agent. Since 1.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_after_ms: Option<u64>,
}

/// What to remove, and by which right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanUp {
    /// The migration.
    pub migration: MigrationId,
    /// The attempt that is cleaned up after: only its domain and its files are removed.
    pub left_by: Attempt,
    /// The guest.
    pub server: ServerId,
    /// By which right.
    pub authority: Authority,
    /// What had been agreed on.
    pub data: MigrateData,
    /// What the destination wrote beside its disks just now ([`ToCompute::ProbeStorage`]); none if it was not asked. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Vec<StorageProbe>>,
}

/// What an agent asks the conductor's leave for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantKind {
    /// Start libvirt's job. Moves the row to `running`.
    Start,
    /// Switch to post-copy. Moves the row to `running (post-copy)`.
    PostCopy,
    /// Go on with a post-copy that broke. Since 1.2.
    RecoverPostCopy,
    /// Let the guest run again on the source.
    Resume,
    /// Stop the guest's CPUs on the destination, in an ownership conflict.
    Suspend,
    /// Remove this host's copy, whatever it does: an operator keeps the other host's.
    Discard,
    /// Remove what an attempt left on the destination: an incoming domain, disks made for it.
    RollbackDestination,
    /// Remove what the guest left on the source.
    CleanSource,
}

/// A request for leave. Who asks is told by the broker (`user_id`), never by the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRequest {
    /// The migration.
    pub migration: MigrationId,
    /// By which right.
    pub authority: Authority,
    /// For what.
    pub kind: GrantKind,
    /// The asking life of the agent.
    pub incarnation: crate::ids::Incarnation,
}

/// The leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The row's version after it; a report names it, so that facts can be told from those before.
    pub revision: Revision,
    /// Whether an abort was asked for meanwhile.
    pub abort_requested: bool,
    /// For a start: the copy's share of the links, MiB/s; none: they have no limit. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_mib: Option<u64>,
}
