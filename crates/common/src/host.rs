//! What a compute host is and has.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Reported by the agent at its start and when it changes; totals only. What is used follows from the servers and the claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInventory {
    /// libvirt's host UUID: the host's identity.
    pub host_uuid: Uuid,
    /// libvirt's own name of the host (`virConnectGetHostname`).
    pub hypervisor_hostname: String,
    /// `virConnectGetType`, for instance `QEMU`.
    pub hypervisor_type: String,
    /// `virConnectGetVersion`: major * 1,000,000 + minor * 1,000 + release.
    pub hypervisor_version: i32,
    /// `virConnectGetLibVersion`, in the same form.
    pub libvirt_version: i32,
    /// The address for migrations: `live_migration_inbound_addr`, else `my_ip`.
    pub host_ip: String,
    /// CPUs that are on.
    pub vcpus: i32,
    /// Memory in MiB.
    pub memory_mb: i64,
    /// Size of the file system with `instances_path`, in GiB.
    pub local_gb: i64,
    /// Free there, in GiB.
    pub free_disk_gb: i64,
    /// `{"arch", "model", "vendor", "topology": {"sockets","cores","threads"}, "features": [..]}`, as Nova shows it.
    pub cpu_info: serde_json::Value,
    /// What its link may carry in each direction, all migrations together, MiB/s; 0: no limit. Since 1.2.
    #[serde(default)]
    pub link_bandwidth_mib: u32,
    /// What one migration that leaves it may take, MiB/s; 0: no limit. Since 1.2.
    #[serde(default)]
    pub migration_bandwidth_mib: u32,
}
