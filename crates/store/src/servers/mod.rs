//! Servers: one row a libvirt domain.
//!
//! Each writer has its columns. Migrations write `task_state`, `progress` and, at their end, `host` and `power_state`; power actions
//! `task_state` and, at their end, the two states; reports of hosts write what the domain is (name, size, power state) while no
//! migration is open. `vm_state` follows the guest. A delete that waits for a migration keeps its `task_state`.

mod labels;
mod list;
mod lock;
mod placement;
mod power;

use chrono::{DateTime, Utc};
use drover_common::ids::{HostName, Incarnation, ServerId};
use drover_common::rpc::latest::DomainReport;
use drover_common::server::{Flavor, PowerState, TaskState, VmState};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{BadValue, StoreError};

pub use labels::{set_metadata, set_tags};
pub use list::{Deleted, Direction, Filter, SortKey, list};
pub use lock::{LockedBy, lock, unlock};
pub use placement::{Placement, place, placement};
pub use power::{claim_for, settle_after};

/// A row of `servers`.
#[derive(Debug, Clone)]
pub struct Server {
    /// The domain's UUID.
    pub uuid: ServerId,
    /// An integer for what Nova makes of it.
    pub id: i64,
    /// The name that people know.
    pub display_name: String,
    /// libvirt's name.
    pub domain_name: String,
    /// Whose it is.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// Where it is.
    pub host: HostName,
    /// libvirt's name of that host.
    pub node: String,
    /// What it is meant to be.
    pub vm_state: VmState,
    /// What is being done to it.
    pub task_state: Option<TaskState>,
    /// What libvirt last said.
    pub power_state: PowerState,
    /// Of a migration, 0 to 100.
    pub progress: i16,
    /// Its size.
    pub flavor: Flavor,
    /// Whether its domain outlives its QEMU.
    pub persistent: bool,
    /// Locked against everybody but admins.
    pub locked: bool,
    /// By whom.
    pub locked_by: Option<LockedBy>,
    /// Why.
    pub locked_reason: Option<String>,
    /// The owner's key-value pairs.
    pub metadata: serde_json::Value,
    /// The report that last wrote here.
    pub observed: (Incarnation, i64),
    /// When it was first seen.
    pub launched_at: DateTime<Utc>,
    /// The same.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
    /// When its domain was gone.
    pub deleted_at: Option<DateTime<Utc>>,
    /// The guest's host name as Nova makes it of the server's name.
    pub hostname: String,
    /// The owner's tags.
    pub tags: Vec<String>,
    /// The availability zone that it must stay in.
    pub pinned_availability_zone: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Record {
    uuid: Uuid,
    id: i64,
    display_name: String,
    domain_name: String,
    project_id: String,
    user_id: String,
    host: String,
    node: String,
    vm_state: String,
    task_state: Option<String>,
    power_state: i16,
    progress: i16,
    flavor_name: String,
    vcpus: i32,
    memory_mb: i32,
    root_gb: i32,
    ephemeral_gb: i32,
    swap_mb: i32,
    persistent: bool,
    locked: bool,
    metadata: serde_json::Value,
    observed_incarnation: Uuid,
    observed_sequence: i64,
    launched_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
    hostname: String,
    pinned_availability_zone: Option<String>,
    #[expect(dead_code, reason = "read through `placement` and `server_groups`")]
    server_group_id: Option<i64>,
    tags: Vec<String>,
    locked_by: Option<String>,
    locked_reason: Option<String>,
}

impl Record {
    fn read(self) -> Result<Server, StoreError> {
        let uuid = self.uuid;
        self.parse().map_err(StoreError::row("servers", uuid))
    }

    fn parse(self) -> Result<Server, BadValue> {
        Ok(Server {
            uuid: ServerId(self.uuid),
            id: self.id,
            display_name: self.display_name,
            domain_name: self.domain_name,
            project_id: self.project_id,
            user_id: self.user_id,
            host: HostName::new(self.host)?,
            node: self.node,
            vm_state: self.vm_state.parse()?,
            task_state: self.task_state.map(|text| text.parse()).transpose()?,
            power_state: PowerState::from_code(self.power_state).ok_or(BadValue::PowerState(self.power_state))?,
            progress: self.progress,
            flavor: Flavor {
                name: self.flavor_name,
                vcpus: self.vcpus,
                memory_mb: self.memory_mb,
                root_gb: self.root_gb,
                ephemeral_gb: self.ephemeral_gb,
                swap_mb: self.swap_mb,
            },
            persistent: self.persistent,
            locked: self.locked,
            locked_by: self.locked_by.map(|text| text.parse()).transpose()?,
            locked_reason: self.locked_reason,
            metadata: self.metadata,
            observed: (Incarnation(self.observed_incarnation), self.observed_sequence),
            launched_at: self.launched_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
            deleted_at: self.deleted_at,
            hostname: self.hostname,
            tags: self.tags,
            pinned_availability_zone: self.pinned_availability_zone,
        })
    }
}

/// One server, deleted ones too.
pub async fn get(conn: &mut PgConnection, id: ServerId) -> Result<Option<Server>, StoreError> {
    let row = sqlx::query_as!(Record, "SELECT * FROM servers WHERE uuid = $1", id.0)
        .fetch_optional(conn)
        .await
        .map_err(StoreError::query("servers.get"))?;
    row.map(Record::read).transpose()
}

/// The servers of these ids, deleted ones too, locked until the end of the transaction, always in the same order.
pub async fn lock_all(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Server>, StoreError> {
    let rows = sqlx::query_as!(Record, "SELECT * FROM servers WHERE uuid = ANY ($1) ORDER BY uuid FOR UPDATE", ids)
        .fetch_all(conn)
        .await
        .map_err(StoreError::query("servers.lock_all"))?;
    rows.into_iter().map(Record::read).collect()
}

/// What a project has.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Servers.
    pub instances: i64,
    /// Their CPUs.
    pub vcpus: i64,
    /// Their memory, MiB.
    pub memory_mb: i64,
    /// Server groups.
    pub server_groups: i64,
}

/// Counts what a project has.
pub async fn usage(conn: &mut PgConnection, project: &str) -> Result<Usage, StoreError> {
    sqlx::query_as!(
        Usage,
        r#"SELECT count(*) AS "instances!", coalesce(sum(vcpus), 0)::bigint AS "vcpus!", coalesce(sum(memory_mb), 0)::bigint AS "memory_mb!",
                  (SELECT count(*) FROM server_groups WHERE project_id = $1) AS "server_groups!"
           FROM servers WHERE project_id = $1 AND deleted_at IS NULL"#,
        project
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::query("servers.usage"))
}

/// A server on a host, in short.
#[derive(Debug, Clone)]
pub struct Hosted {
    /// The host.
    pub host: String,
    /// The server.
    pub uuid: Uuid,
    /// Its name in libvirt.
    pub domain_name: String,
}

/// What is recorded on these hosts.
pub async fn hosted(conn: &mut PgConnection, hosts: &[String]) -> Result<Vec<Hosted>, StoreError> {
    sqlx::query_as!(
        Hosted,
        "SELECT host, uuid, domain_name FROM servers WHERE deleted_at IS NULL AND host = ANY ($1) ORDER BY id",
        hosts
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("servers.hosted"))
}

/// The flavors that servers have, by name; of several sizes under one name, that of the newest server. `only` asks for one.
pub async fn flavors(conn: &mut PgConnection, only: Option<&str>) -> Result<Vec<Flavor>, StoreError> {
    sqlx::query_as!(
        Flavor,
        "SELECT DISTINCT ON (flavor_name) flavor_name AS name, vcpus, memory_mb, root_gb, ephemeral_gb, swap_mb
         FROM servers WHERE deleted_at IS NULL AND ($1::text IS NULL OR flavor_name = $1) ORDER BY flavor_name, id DESC",
        only
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("servers.flavors"))
}

/// Takes the server for a task if it is free (Nova: `@check_instance_state` and the save with `expected_task_state`).
/// Returns it as it is now; `None`: it was not free, or is not there, and nothing was changed.
pub async fn claim_task_state(conn: &mut PgConnection, id: ServerId, want: TaskState) -> Result<Option<Server>, StoreError> {
    let row = sqlx::query_as!(
        Record,
        "UPDATE servers SET task_state = $2, progress = 0, updated_at = now()
         WHERE uuid = $1 AND task_state IS NULL AND vm_state IN ('active', 'paused') AND deleted_at IS NULL
         RETURNING *",
        id.0,
        want.as_str(),
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("servers.claim_task_state"))?;
    row.map(Record::read).transpose()
}

/// Sets the server free where it is, if it is still migrating; `vm_state` stays.
pub async fn release_task_state(conn: &mut PgConnection, id: ServerId) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE servers SET task_state = NULL, progress = 0, updated_at = now() WHERE uuid = $1 AND task_state = 'migrating'",
        id.0,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.release_task_state"))?;
    Ok(done.rows_affected() == 1)
}

/// An operator's word (`os-resetState`): this state, and nothing is being done. Returns whether the server is there.
pub async fn reset_state(conn: &mut PgConnection, id: ServerId, vm_state: VmState) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE servers SET vm_state = $2, task_state = NULL, progress = 0, updated_at = now() WHERE uuid = $1 AND deleted_at IS NULL",
        id.0,
        vm_state.as_str(),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.reset_state"))?;
    Ok(done.rows_affected() == 1)
}

/// What the books say of a guest after its migration.
#[derive(Debug, Clone)]
pub struct Settled<'a> {
    /// Where it is.
    pub host: &'a HostName,
    /// libvirt's name of that host.
    pub node: &'a str,
    /// What libvirt says; decides `vm_state` too.
    pub power_state: PowerState,
    /// The report that says so, if a new host does: none that was made before it counts any more.
    pub observed: Option<(Incarnation, i64)>,
}

/// The end of a migration: where the guest is and how, and the server is free. An operator's `error` stays unless the guest runs
/// and nobody asked for it since.
pub async fn settle(conn: &mut PgConnection, id: ServerId, settled: &Settled<'_>) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE servers SET host = $2, node = $3, power_state = $4, vm_state = CASE WHEN vm_state = 'deleted' THEN vm_state ELSE $5 END,
                task_state = CASE WHEN task_state = 'deleting' THEN task_state END, progress = 0,
                observed_incarnation = coalesce($6, observed_incarnation),
                observed_sequence = coalesce($7, observed_sequence), updated_at = now()
         WHERE uuid = $1",
        id.0,
        settled.host.as_str(),
        settled.node,
        settled.power_state.code(),
        vm_state_of(settled.power_state).as_str(),
        settled.observed.map(|(life, _)| life.0),
        settled.observed.map(|(_, sequence)| sequence),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.settle"))?;
    Ok(())
}

/// Says that the guest is nowhere.
pub async fn lost(conn: &mut PgConnection, id: ServerId) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE servers SET power_state = 4, vm_state = 'error', task_state = CASE WHEN task_state = 'deleting' THEN task_state END,
                progress = 0, updated_at = now()
         WHERE uuid = $1",
        id.0,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.lost"))?;
    Ok(())
}

/// Nova's `progress` while a migration runs.
pub async fn set_progress(conn: &mut PgConnection, id: ServerId, percent: i16) -> Result<(), StoreError> {
    sqlx::query!("UPDATE servers SET progress = $2 WHERE uuid = $1 AND task_state = 'migrating'", id.0, percent)
        .execute(conn)
        .await
        .map_err(StoreError::query("servers.set_progress"))?;
    Ok(())
}

/// The `vm_state` of a guest in this power state, when nothing else is known of it.
pub const fn vm_state_of(power_state: PowerState) -> VmState {
    match power_state {
        PowerState::Running | PowerState::Suspended | PowerState::NoState => VmState::Active,
        PowerState::Paused => VmState::Paused,
        PowerState::Shutdown | PowerState::Crashed => VmState::Stopped,
    }
}

/// Where a report comes from.
#[derive(Debug, Clone, Copy)]
pub struct Observer<'a> {
    /// The host.
    pub host: &'a HostName,
    /// libvirt's name of it.
    pub node: &'a str,
    /// The agent's life.
    pub incarnation: Incarnation,
    /// Its count.
    pub sequence: i64,
}

/// Makes a domain known as a server, or (a UUID is never adopted twice) brings its row back: here it is, so it looks. `owner` is
/// (project, user). Whoever calls has decided that this host's copy is the one that counts.
pub async fn adopt(
    conn: &mut PgConnection,
    observer: Observer<'_>,
    domain: &DomainReport,
    vm_state: VmState,
    owner: (&str, &str),
) -> Result<(), StoreError> {
    let flavor = &domain.flavor;
    sqlx::query!(
        "INSERT INTO servers (uuid, display_name, domain_name, project_id, user_id, host, node, vm_state, power_state, flavor_name, vcpus,
                              memory_mb, root_gb, ephemeral_gb, swap_mb, persistent, observed_incarnation, observed_sequence)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
         ON CONFLICT (uuid) DO UPDATE SET display_name = $2, domain_name = $3, project_id = $4, user_id = $5, host = $6, node = $7,
             vm_state = $8, power_state = $9, flavor_name = $10, vcpus = $11, memory_mb = $12, root_gb = $13, ephemeral_gb = $14,
             swap_mb = $15, persistent = $16, observed_incarnation = $17, observed_sequence = $18, deleted_at = NULL, updated_at = now()",
        domain.server.0,
        domain.display_name,
        domain.domain_name,
        owner.0,
        owner.1,
        observer.host.as_str(),
        observer.node,
        vm_state.as_str(),
        domain.state.power_state().code(),
        flavor.name,
        flavor.vcpus,
        flavor.memory_mb,
        flavor.root_gb,
        flavor.ephemeral_gb,
        flavor.swap_mb,
        domain.persistent,
        observer.incarnation.0,
        observer.sequence,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.adopt"))?;
    Ok(())
}

/// Its domain is gone.
pub async fn gone(conn: &mut PgConnection, observer: Observer<'_>, id: ServerId) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE servers SET vm_state = 'deleted', power_state = 4, task_state = NULL, deleted_at = now(), updated_at = now(),
                observed_incarnation = $2, observed_sequence = $3
         WHERE uuid = $1 AND deleted_at IS NULL",
        id.0,
        observer.incarnation.0,
        observer.sequence,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.gone"))?;
    Ok(())
}

/// Its host has no copy any more, and another host has an active one, which is looked at again: until then the guest is off.
pub async fn left(conn: &mut PgConnection, observer: Observer<'_>, id: ServerId) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE servers SET power_state = 4, updated_at = now(), observed_incarnation = $2, observed_sequence = $3
         WHERE uuid = $1 AND deleted_at IS NULL",
        id.0,
        observer.incarnation.0,
        observer.sequence,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.left"))?;
    Ok(())
}

/// The ids of the servers recorded on a host.
pub async fn on_host(conn: &mut PgConnection, host: &HostName) -> Result<Vec<ServerId>, StoreError> {
    let rows = sqlx::query_scalar!("SELECT uuid FROM servers WHERE host = $1 AND deleted_at IS NULL", host.as_str())
        .fetch_all(conn)
        .await
        .map_err(StoreError::query("servers.on_host"))?;
    Ok(rows.into_iter().map(ServerId).collect())
}
