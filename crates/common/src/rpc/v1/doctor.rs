//! What `drover doctor` knows of hosts: gathered by their agents when it is asked, judged by nobody here.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::HostName;

/// To an agent: look at your host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnose {
    /// Hosts to try whether they can be reached.
    pub peers: Vec<Peer>,
}

/// A host as others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub host: HostName,
    /// Where it takes migrations: `live_migration_inbound_addr`, else its name.
    pub address: String,
    /// One of its migration ports, listened on for the try; none if none was free.
    pub migration_port: Option<u16>,
}

/// What an agent sees of its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDiagnosis {
    /// The agent's release.
    pub release: String,
    /// The host's clock when it answered.
    pub clock: DateTime<Utc>,
    /// How others reach it, with a migration port that is listened on for a while.
    pub here: Peer,
    /// Whether libvirt answers.
    pub libvirt_up: bool,
    /// The kernel's `tcp_syn_retries`, if it could be read.
    pub tcp_syn_retries: Option<u32>,
    /// The certificates that are used here: to the broker, by libvirt, by QEMU.
    pub certificates: Vec<Certificate>,
    /// What `instances_path` lies on.
    pub instances: Option<Mount>,
    /// The tries to reach the others.
    pub reach: Vec<Reach>,
}

/// A certificate in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The file.
    pub path: String,
    /// Good until then; none if it cannot be read.
    pub not_after: Option<DateTime<Utc>>,
    /// Why it cannot be read.
    pub problem: Option<String>,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The directory that was asked about.
    pub path: String,
    /// For instance `ext4`, `nfs4`, `ceph`.
    pub file_system: String,
    /// What is mounted: a device, `server:/export`.
    pub source: String,
}

/// A try to reach another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Which.
    pub host: HostName,
    /// Why its libvirt or its migration port cannot be reached; none if both can.
    pub problem: Option<String>,
}

/// What a conductor gathered from the fleet's agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetDiagnosis {
    /// The conductor's release.
    pub release: String,
    /// The conductor's clock when it began.
    pub clock: DateTime<Utc>,
    /// The agents that were asked, in the order of their hosts' names.
    pub hosts: Vec<Diagnosed>,
}

/// What one agent said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosed {
    /// The host.
    pub host: HostName,
    /// How far its clock is ahead of the conductor's, milliseconds; what the way takes is halved.
    pub clock_ahead_ms: Option<i64>,
    /// What it sees.
    pub diagnosis: Option<HostDiagnosis>,
    /// Why it did not say.
    pub problem: Option<String>,
}
