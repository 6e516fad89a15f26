//! Compute hosts: what their agents reported, and what is promised of it.

use std::time::Duration;

use drover_common::host::HostInventory;
use drover_common::ids::{HostName, Incarnation, ServerId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{BadValue, StoreError};

/// A host with everything that a decision about it needs, as one statement saw it.
#[derive(Debug, Clone)]
pub struct HostState {
    /// Its name.
    pub host: HostName,
    /// libvirt's name of it.
    pub node: String,
    /// For instance `QEMU`.
    pub hypervisor_type: String,
    /// major * 1,000,000 + minor * 1,000 + release.
    pub hypervisor_version: i32,
    /// All it has.
    pub vcpus: i64,
    /// All it has.
    pub memory_mb: i64,
    /// Of the servers recorded there and of the claims of migrations on their way there.
    pub vcpus_used: i64,
    /// The same.
    pub memory_mb_used: i64,
    /// Migrations that leave it or arrive at it.
    pub migrations: i64,
    /// The reason that was given for passing it by (perhaps an empty one); none while it is enabled.
    pub disabled: Option<String>,
    /// An operator asserts that it is fenced.
    pub forced_down: bool,
    /// Whether its agent's heartbeat is young enough and it is not forced down.
    pub up: bool,
    /// Seconds since that heartbeat.
    pub silent_for_s: i64,
    /// Its availability zone, if an aggregate puts it into one.
    pub zone: Option<String>,
    /// Other members of the server's group that are there, or on their way there.
    pub group_members: i64,
    /// Whether it still owes a clean-up for this server.
    pub owes_cleanup: bool,
}

/// What the API shows of a host.
#[derive(Debug, Clone)]
pub struct Hypervisor {
    /// Nova's integer id.
    pub id: i64,
    /// libvirt's host UUID.
    pub uuid: Uuid,
    /// The integer id of its service.
    pub service_id: i64,
    /// The service's id from microversion 2.53 on.
    pub service_uuid: Uuid,
    /// libvirt's name of it.
    pub hypervisor_hostname: String,
    /// Address for migrations.
    pub host_ip: String,
    /// Size of the file system with the guests' disks, GiB.
    pub local_gb: i64,
    /// Free there, GiB.
    pub free_disk_gb: i64,
    /// The CPU, as Nova shows it.
    pub cpu_info: serde_json::Value,
    /// Guests that run.
    pub running_vms: i64,
    /// The rest.
    pub state: HostState,
}

/// What runs guests on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// Its name.
    pub host: HostName,
    /// For instance `QEMU`.
    pub hypervisor_type: String,
    /// major * 1,000,000 + minor * 1,000 + release.
    pub hypervisor_version: i32,
    /// The same form.
    pub libvirt_version: i32,
}

/// Why a host that introduces itself is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotThisHost {
    /// The name belongs to another machine.
    #[error(
        "{host} is already known with libvirt host UUID {known}, this one has {found}: another machine has taken its name, or its \
         libvirt was set up anew. Give it another `host` name, or delete the old compute service."
    )]
    NameTaken {
        /// The name.
        host: HostName,
        /// The UUID on record.
        known: Uuid,
        /// The UUID that was reported.
        found: Uuid,
    },
    /// The machine is known under another name.
    #[error(
        "libvirt host UUID {found} already belongs to {known}, now it introduces itself as {host}: it was renamed or cloned. Give a \
         clone a `host_uuid` of its own in libvirtd.conf; a renamed host takes its old name, or its old compute service is deleted."
    )]
    Renamed {
        /// The name on record.
        known: String,
        /// The new name.
        host: HostName,
        /// The UUID.
        found: Uuid,
    },
}

/// The version of a host's libvirt (major * 1,000,000 + minor * 1,000 + release), as its agent last reported it.
pub async fn libvirt_version(conn: &mut PgConnection, host: &HostName) -> Result<Option<i32>, StoreError> {
    sqlx::query_scalar!("SELECT libvirt_version FROM compute_nodes WHERE host = $1", host.as_str())
        .fetch_optional(conn)
        .await
        .map_err(StoreError::query("hosts.libvirt_version"))
}

/// Records what a host's agent says of it at its start. The agent's life given here becomes the host's present one.
pub async fn host_up(
    conn: &mut PgConnection,
    host: &HostName,
    service_id: i64,
    incarnation: Incarnation,
    inventory: &HostInventory,
) -> Result<Result<(), NotThisHost>, StoreError> {
    let known =
        sqlx::query!("SELECT uuid, host FROM compute_nodes WHERE host = $1 OR uuid = $2", host.as_str(), inventory.host_uuid)
            .fetch_all(&mut *conn)
            .await
            .map_err(StoreError::query("hosts.host_up"))?;
    let found = inventory.host_uuid;
    for row in known {
        if row.host != host.as_str() {
            return Ok(Err(NotThisHost::Renamed { known: row.host, host: host.clone(), found }));
        }
        if row.uuid != found {
            return Ok(Err(NotThisHost::NameTaken { host: host.clone(), known: row.uuid, found }));
        }
    }
    sqlx::query!(
        "INSERT INTO compute_nodes (uuid, host, service_id, hypervisor_hostname, hypervisor_type, hypervisor_version, libvirt_version,
                                    host_ip, vcpus, memory_mb, local_gb, free_disk_gb, cpu_info, incarnation,
                                    link_bandwidth_mib, migration_bandwidth_mib)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         ON CONFLICT (uuid) DO UPDATE SET hypervisor_hostname = $4, hypervisor_type = $5, hypervisor_version = $6,
             libvirt_version = $7, host_ip = $8, vcpus = $9, memory_mb = $10, local_gb = $11, free_disk_gb = $12, cpu_info = $13,
             incarnation = $14, link_bandwidth_mib = $15, migration_bandwidth_mib = $16, updated_at = now()",
        inventory.host_uuid,
        host.as_str(),
        service_id,
        inventory.hypervisor_hostname,
        inventory.hypervisor_type,
        inventory.hypervisor_version,
        inventory.libvirt_version,
        inventory.host_ip,
        inventory.vcpus,
        inventory.memory_mb,
        inventory.local_gb,
        inventory.free_disk_gb,
        inventory.cpu_info,
        incarnation.0,
        i64::from(inventory.link_bandwidth_mib),
        i64::from(inventory.migration_bandwidth_mib),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("hosts.host_up"))?;
    Ok(Ok(()))
}

/// The present life of a host's agent, and the node's name; `None` for a host that never introduced itself.
pub async fn present_life(conn: &mut PgConnection, host: &HostName) -> Result<Option<(Incarnation, String)>, StoreError> {
    let row = sqlx::query!("SELECT incarnation, hypervisor_hostname FROM compute_nodes WHERE host = $1", host.as_str())
        .fetch_optional(conn)
        .await
        .map_err(StoreError::query("hosts.present_life"))?;
    Ok(row.map(|row| (Incarnation(row.incarnation), row.hypervisor_hostname)))
}

/// All hosts, or the ones named, by name. `server` is the one to be placed: its own size does not count against its destination.
pub async fn snapshot(
    conn: &mut PgConnection,
    only: Option<&[String]>,
    server: Option<ServerId>,
    down_time: Duration,
) -> Result<Vec<HostState>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT n.host, n.hypervisor_hostname, n.hypervisor_type, n.hypervisor_version, n.vcpus, n.memory_mb,
                  s.disabled, s.disabled_reason, s.forced_down,
                  NOT s.forced_down AND now() - coalesce(s.last_seen_up, s.created_at) <= make_interval(secs => $3) AS "up!",
                  extract(epoch FROM now() - coalesce(s.last_seen_up, s.created_at))::bigint AS "silent_for_s!",
                  coalesce(own.vcpus, 0) + coalesce(coming.vcpus, 0) AS "vcpus_used!",
                  coalesce(own.memory_mb, 0) + coalesce(coming.memory_mb, 0) AS "memory_mb_used!",
                  coalesce(coming.count, 0) + coalesce(leaving.count, 0) AS "migrations!",
                  EXISTS (SELECT FROM cleanup_debts d WHERE d.host = n.host AND d.server_uuid = $2 AND d.paid_at IS NULL) AS "owes!",
                  (SELECT zone FROM host_zones WHERE zone_host = n.host) AS zone,
                  (SELECT count(*) FROM servers o JOIN servers s ON s.server_group_id = o.server_group_id
                   WHERE s.uuid = $2 AND o.uuid <> $2 AND o.deleted_at IS NULL
                     AND (o.host = n.host OR EXISTS (SELECT FROM migrations m JOIN claims c ON c.migration_id = m.id
                                                     WHERE m.server_uuid = o.uuid AND c.dest_host = n.host))) AS "group_members!"
           FROM compute_nodes n
           JOIN services s ON s.id = n.service_id
           LEFT JOIN (SELECT host, sum(vcpus) AS vcpus, sum(memory_mb) AS memory_mb FROM servers
                      WHERE deleted_at IS NULL AND uuid IS DISTINCT FROM $2 AND ($1::text[] IS NULL OR host = ANY ($1))
                      GROUP BY host) own ON own.host = n.host
           LEFT JOIN (SELECT dest_host, count(*), sum(vcpus) AS vcpus, sum(memory_mb) AS memory_mb FROM claims GROUP BY dest_host) coming
                  ON coming.dest_host = n.host
           LEFT JOIN (SELECT source_host, count(*) FROM claims GROUP BY source_host) leaving ON leaving.source_host = n.host
           WHERE $1::text[] IS NULL OR n.host = ANY ($1)
           ORDER BY n.host"#,
        only,
        server.map(|s| s.0),
        crate::seconds(down_time),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("hosts.snapshot"))?;
    rows.into_iter()
        .map(|row| {
            Ok(HostState {
                host: HostName::new(row.host.clone())
                    .map_err(BadValue::from)
                    .map_err(StoreError::row("compute_nodes", row.host))?,
                node: row.hypervisor_hostname,
                hypervisor_type: row.hypervisor_type,
                hypervisor_version: row.hypervisor_version,
                vcpus: row.vcpus.into(),
                memory_mb: row.memory_mb,
                vcpus_used: row.vcpus_used,
                memory_mb_used: row.memory_mb_used,
                migrations: row.migrations,
                disabled: row.disabled.then(|| row.disabled_reason.unwrap_or_default()),
                forced_down: row.forced_down,
                up: row.up,
                silent_for_s: row.silent_for_s,
                zone: row.zone,
                group_members: row.group_members,
                owes_cleanup: row.owes,
            })
        })
        .collect()
}

/// Whether the host has a compute node.
pub async fn exists(conn: &mut PgConnection, host: &HostName) -> Result<bool, StoreError> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM compute_nodes WHERE host = $1) AS "exists!""#, host.as_str())
        .fetch_one(conn)
        .await
        .map_err(StoreError::query("hosts.exists"))
}

/// All hosts as the API shows them, in the order of their ids.
pub async fn hypervisors(conn: &mut PgConnection, down_time: Duration) -> Result<Vec<Hypervisor>, StoreError> {
    let mut states: std::collections::HashMap<String, HostState> =
        snapshot(&mut *conn, None, None, down_time).await?.into_iter().map(|s| (s.host.as_str().to_owned(), s)).collect();
    let rows = sqlx::query!(
        r#"SELECT n.id, n.uuid, n.host, n.service_id, s.uuid AS service_uuid, n.hypervisor_hostname, n.host_ip, n.local_gb,
                  n.free_disk_gb, n.cpu_info,
                  (SELECT count(*) FROM servers v WHERE v.host = n.host AND v.deleted_at IS NULL AND v.power_state = 1) AS "running!"
           FROM compute_nodes n JOIN services s ON s.id = n.service_id ORDER BY n.id"#
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("hosts.hypervisors"))?;
    let found = rows.into_iter().filter_map(|row| {
        Some(Hypervisor {
            state: states.remove(&row.host)?, // A host that came between the two statements shows in the next listing.
            id: row.id,
            uuid: row.uuid,
            service_id: row.service_id,
            service_uuid: row.service_uuid,
            hypervisor_hostname: row.hypervisor_hostname,
            host_ip: row.host_ip,
            local_gb: row.local_gb,
            free_disk_gb: row.free_disk_gb,
            cpu_info: row.cpu_info,
            running_vms: row.running,
        })
    });
    Ok(found.collect())
}

/// What runs guests on each host, in the order of their names.
pub async fn versions(conn: &mut PgConnection) -> Result<Vec<Versions>, StoreError> {
    let rows = sqlx::query!("SELECT host, hypervisor_type, hypervisor_version, libvirt_version FROM compute_nodes ORDER BY host")
        .fetch_all(conn)
        .await
        .map_err(StoreError::query("hosts.versions"))?;
    let read = rows.into_iter().map(|row| {
        let host = HostName::new(row.host.clone()).map_err(BadValue::from).map_err(StoreError::row("compute_nodes", row.host))?;
        let (hypervisor_version, libvirt_version) = (row.hypervisor_version, row.libvirt_version);
        Ok(Versions { host, hypervisor_type: row.hypervisor_type, hypervisor_version, libvirt_version })
    });
    read.collect()
}
