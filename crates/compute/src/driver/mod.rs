//! The only door to a hypervisor.
//!
//! [`Driver`] is what the agent asks of one; [`libvirt`] is the real one. Everything that decides something is on this side of the
//! door and works on the types of this module, so that a simulated driver shares it.
//!
//! *Adding a hypervisor:* implement [`Driver`], choose it in `lib.rs`. Domains are described by libvirt's XML, whatever is behind.

pub mod libvirt;

use std::time::Instant;

use drover_common::fault::Fault;
use drover_common::ids::{HostName, MigrationId, ServerId};
use drover_common::migration::{JobResult, Progress};
use drover_common::rpc::latest::{JobKind, Marker};
use futures::future::BoxFuture;
use tokio::sync::{broadcast, watch};

use crate::domain_xml::Machine;

/// What a question to the hypervisor brings.
pub type Answer<T> = BoxFuture<'static, Result<T, DriverError>>;

/// A hypervisor on this host. Answers do not borrow, so that a caller can wait for several at once.
pub trait Driver: Send + Sync {
    /// Whether it is there, and how often it came (again).
    fn connection(&self) -> watch::Receiver<Connection>;
    /// What happens to domains, from now on. Who lags behind must look at everything again.
    fn events(&self) -> broadcast::Receiver<DomainEvent>;

    /// What the host is and has.
    fn host(&self) -> Answer<HostDescription>;
    /// The UUIDs of all domains, running or not. What each is has to be asked one by one: one that does not answer is no reason to
    /// know nothing of the others.
    fn servers(&self) -> Answer<Vec<ServerId>>;
    /// One domain; [`ErrorClass::NoDomain`] if there is none.
    fn domain(&self, server: ServerId) -> Answer<Domain>;
    /// One of a domain's XMLs. Not to be asked for a domain that is arriving: libvirt keeps the answer back until it is there.
    fn xml(&self, server: ServerId, kind: XmlKind) -> Answer<String>;
    /// The domain of this name, if there is one.
    fn named(&self, name: String) -> Answer<Option<ServerId>>;
    /// What libvirt keeps beside a domain.
    fn inspect(&self, server: ServerId) -> Answer<Inspection>;
    /// The use of the disks with these targets, in that order.
    fn disk_usage(&self, server: ServerId, targets: Vec<String>) -> Answer<Vec<DiskUsage>>;
    /// How fast the block job on each of these disks may copy, in MiB/s; 0 for no limit.
    fn set_disk_speed(&self, server: ServerId, targets: Vec<String>, mib: u64) -> Answer<()>;
    /// libvirt's job on a domain and how far it is.
    fn job(&self, server: ServerId) -> Answer<JobSample>;

    /// The domain capabilities (XML) for such a guest, or [`ErrorClass::Other`] with the reason why none can run here.
    fn capabilities(&self, machine: Machine) -> Answer<String>;
    /// Whether a guest of this machine can have this `<cpu>` here.
    fn compare_cpu(&self, machine: Machine, cpu: String) -> Answer<CpuComparison>;
    /// Whether this host's own CPU has all that another host's `<cpu>` has.
    fn compare_host_cpu(&self, cpu: String) -> Answer<CpuComparison>;

    /// This domain will be migrated soon: make ready what takes time.
    fn prepare_migration(&self, server: ServerId);
    /// Migrates; the answer comes when libvirt's call returns. Dropping it changes nothing: the call goes on.
    fn migrate(&self, call: MigrateCall) -> Answer<()>;
    /// Does something to a domain.
    fn act(&self, server: ServerId, action: Action) -> Answer<()>;
    /// Makes a domain persistent.
    fn define(&self, xml: String) -> Answer<()>;
}

/// The state of the connection to the hypervisor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connection {
    /// Connections so far: 0 before the first.
    pub count: u64,
    /// Whether the last one still holds.
    pub up: bool,
}

/// What happens to domains.
#[derive(Debug, Clone, PartialEq)]
pub enum DomainEvent {
    /// It was defined, started, suspended, resumed, stopped, …: look at it.
    Changed(ServerId),
    /// Its CPUs run here from now on, because of a migration, and when this was heard. It may not be whole yet.
    Arrived(ServerId, Instant),
    /// Its migration began another pass over the memory.
    Iteration(ServerId),
    /// Its job ended well; libvirt's account of it. Comes once and cannot be asked for again.
    JobCompleted(ServerId, Box<JobResult>),
}

/// Which of a domain's XMLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XmlKind {
    /// As it runs, without secrets.
    Live,
    /// As it is sent to another host, with secrets.
    Migratable,
    /// As it will be started the next time, with secrets.
    Persistent,
}

/// One domain, as far as libvirt tells at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its UUID.
    pub server: ServerId,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: RunState,
    /// Whether it is defined and so outlives its QEMU.
    pub persistent: bool,
    /// The job on it.
    pub job: Option<JobKind>,
    /// The migration that brought it here, from its metadata.
    pub marker: Option<Marker>,
}

/// A domain's state and reason, as `virDomainGetState` tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Its CPUs run.
    Running,
    /// Its CPUs run while its memory still comes.
    RunningPostCopy,
    /// The same, and the stream broke.
    RunningPostCopyFailed,
    /// Its CPUs stand.
    Paused(PauseReason),
    /// There is no QEMU.
    ShutOff,
    /// It crashed.
    Crashed,
    /// It sleeps by its own wish.
    Suspended,
}

/// Why CPUs stand (`virDomainPausedReason`), as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    /// A migration.
    Migration,
    /// QEMU has just been started, perhaps to receive a guest.
    StartingUp,
    /// Post-copy: the guest runs on the other side.
    PostCopy,
    /// The same, and the stream broke.
    PostCopyFailed,
    /// libvirt stopped the guest for a job and could not let it go on when the job failed.
    ApiError,
    /// The owner's wish, an I/O error, anything else.
    Other,
}

/// What libvirt keeps beside a domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Snapshots in libvirt's books: it does not migrate a domain that has any.
    pub snapshots: u32,
    /// Whether a saved image waits for it.
    pub managed_save: bool,
}

/// The use of one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// What the guest sees, in bytes.
    pub capacity: u64,
    /// What it takes, in bytes.
    pub allocation: u64,
    /// Whether a block job works on it.
    pub block_job: bool,
}

/// A look at a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobSample {
    /// Which job; none if there is none.
    pub kind: Option<JobKind>,
    /// How far it is.
    pub progress: Progress,
}

/// The hypervisor's word on a CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuComparison {
    /// The guest can have it.
    Fits,
    /// It cannot, and why.
    Incompatible(String),
    /// The hypervisor cannot tell for such guests, and why.
    CannotTell(String),
}

/// What is done to a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stop its CPUs.
    Suspend,
    /// Let its CPUs run.
    Resume,
    /// End its QEMU at once.
    Destroy,
    /// Remove its definition. What belongs to the guest (firmware variables, TPM state) stays: both hosts may share it.
    Undefine,
    /// Start it from its definition.
    Start,
    /// Tell it to shut down. Whether it obeys shows later.
    Shutdown,
    /// Remove its definition and what libvirt keeps beside it: firmware variables, TPM state, saved image, snapshots' metadata. No disk.
    UndefineAll,
    /// Take its migration back.
    AbortJob,
    /// Switch its migration to post-copy.
    StartPostCopy,
    /// How fast its migration may send its memory.
    SetMaxSpeed {
        /// MiB/s; [`NO_LIMIT`] for no limit.
        mib: u64,
        /// Also after a switch to post-copy.
        post_copy: bool,
    },
    /// How long its migration may stop it at the end.
    SetMaxDowntime {
        /// Milliseconds.
        milliseconds: u64,
    },
}

/// No limit, in MiB/s: libvirt's own word for it (`QEMU_DOMAIN_MIG_BANDWIDTH_MAX`); 0 is not one.
pub const NO_LIMIT: u64 = i64::MAX as u64 >> 20;

/// One call of `virDomainMigrateToURI3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrateCall {
    /// For the log.
    pub migration: MigrationId,
    /// The domain.
    pub server: ServerId,
    /// The destination's libvirt.
    pub destination_uri: String,
    /// `VIR_MIGRATE_*`.
    pub flags: u32,
    /// The domain's XML on the destination.
    pub destination_xml: String,
    /// Its definition there, if it becomes persistent.
    pub persistent_xml: Option<String>,
    /// Where the memory goes, if not where libvirt would send it.
    pub migrate_uri: Option<String>,
    /// Targets of the disks to copy.
    pub migrate_disks: Vec<String>,
    /// MiB/s, for the memory and for each of the disks; 0 for libvirt's default.
    pub bandwidth_mib: u64,
    /// Connections of a parallel stream.
    pub parallel_connections: Option<u8>,
    /// zstd and its level, for a parallel stream.
    pub zstd_level: Option<u8>,
}

/// What the host is and has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDescription {
    /// libvirt's name of the host.
    pub hostname: String,
    /// `virConnectGetType`.
    pub hypervisor_type: String,
    /// `virConnectGetVersion`.
    pub hypervisor_version: i32,
    /// `virConnectGetLibVersion`.
    pub libvirt_version: i32,
    /// CPUs that are on.
    pub cpus: i32,
    /// Memory in MiB.
    pub memory_mb: i64,
    /// `virConnectGetCapabilities`.
    pub capabilities: String,
}

/// How an error is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// There is no such domain.
    NoDomain,
    /// No connection: nothing is known of what was done.
    Unavailable,
    /// This hypervisor cannot do it.
    Unsupported,
    /// Something else is being done to the domain, and libvirt has waited for it in vain.
    Busy,
    /// Anything else: a refusal or a failure.
    Other,
}

/// The hypervisor's refusal or failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DriverError {
    /// How it is to be taken.
    pub class: ErrorClass,
    /// libvirt's error number (`virErrorNumber`), 0 if it is not libvirt's.
    pub code: u32,
    /// libvirt's error domain (`virErrorDomain`), 0 if it is not libvirt's.
    pub domain: u32,
    /// Its words.
    pub message: String,
}

impl DriverError {
    /// There is no connection.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { class: ErrorClass::Unavailable, code: 0, domain: 0, message: message.into() }
    }

    /// A failure on this side of libvirt.
    pub fn other(message: impl Into<String>) -> Self {
        Self { class: ErrorClass::Other, ..Self::unavailable(message) }
    }

    /// What the conductor is told: `otherwise` makes a fault of what is no matter of the connection or of a missing domain.
    pub fn into_fault(self, host: &HostName, server: ServerId, otherwise: impl FnOnce(String) -> Fault) -> Fault {
        match self.class {
            ErrorClass::NoDomain => Fault::instance_not_found(server),
            ErrorClass::Unavailable => Fault::hypervisor_unavailable(host, self.message),
            ErrorClass::Unsupported | ErrorClass::Busy | ErrorClass::Other => {
                otherwise(format!("libvirt on {host}: {}", self.message))
            }
        }
    }
}

/// Turns "there is no such domain" into nothing.
pub fn if_there<T>(result: Result<T, DriverError>) -> Result<Option<T>, DriverError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.class == ErrorClass::NoDomain => Ok(None),
        Err(error) => Err(error),
    }
}
