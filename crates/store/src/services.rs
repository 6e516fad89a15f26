//! Services: who heartbeats, and what operators wish of them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use drover_common::ids::HostName;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{BadValue, StoreError};

/// The binary's name of a compute agent, as Nova has it.
pub const COMPUTE: &str = "nova-compute";
/// The binary's name of a conductor, as Nova has it.
pub const CONDUCTOR: &str = "nova-conductor";

/// A row of `services`.
#[derive(Debug, Clone)]
pub struct Service {
    /// Nova's integer id.
    pub id: i64,
    /// The id from microversion 2.53 on.
    pub uuid: Uuid,
    /// `nova-compute` or `nova-conductor`.
    pub binary: String,
    /// Where it runs.
    pub host: HostName,
    /// The scheduler passes it by.
    pub disabled: bool,
    /// Why.
    pub disabled_reason: Option<String>,
    /// An operator asserts that the host is fenced.
    pub forced_down: bool,
    /// Whether its heartbeat is younger than `service_down_time` and it is not forced down.
    pub up: bool,
    /// Last change of the row.
    pub updated_at: Option<DateTime<Utc>>,
}

struct Record {
    id: i64,
    uuid: Uuid,
    binary_name: String,
    host: String,
    disabled: bool,
    disabled_reason: Option<String>,
    forced_down: bool,
    updated_at: Option<DateTime<Utc>>,
    up: bool,
}

impl Record {
    fn read(self) -> Result<Service, StoreError> {
        let host = HostName::new(self.host).map_err(BadValue::from).map_err(StoreError::row("services", self.id))?;
        Ok(Service {
            id: self.id,
            uuid: self.uuid,
            binary: self.binary_name,
            host,
            disabled: self.disabled,
            disabled_reason: self.disabled_reason,
            forced_down: self.forced_down,
            up: self.up,
            updated_at: self.updated_at,
        })
    }
}

/// All services, or those of a host or a binary, in the order of their ids.
pub async fn list(
    conn: &mut PgConnection,
    host: Option<&str>,
    binary: Option<&str>,
    down_time: Duration,
) -> Result<Vec<Service>, StoreError> {
    let rows = sqlx::query_as!(
        Record,
        r#"SELECT id, uuid, binary_name, host, disabled, disabled_reason, forced_down, updated_at,
                  NOT forced_down AND now() - coalesce(last_seen_up, created_at) <= make_interval(secs => $3) AS "up!"
           FROM services WHERE ($1::text IS NULL OR host = $1) AND ($2::text IS NULL OR binary_name = $2) ORDER BY id"#,
        host,
        binary,
        crate::seconds(down_time),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("services.list"))?;
    rows.into_iter().map(Record::read).collect()
}

/// One service.
pub async fn get(conn: &mut PgConnection, uuid: Uuid, down_time: Duration) -> Result<Option<Service>, StoreError> {
    let row = sqlx::query_as!(
        Record,
        r#"SELECT id, uuid, binary_name, host, disabled, disabled_reason, forced_down, updated_at,
                  NOT forced_down AND now() - coalesce(last_seen_up, created_at) <= make_interval(secs => $2) AS "up!"
           FROM services WHERE uuid = $1"#,
        uuid,
        crate::seconds(down_time),
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("services.get"))?;
    row.map(Record::read).transpose()
}

/// The same by Nova's integer id, which counts before 2.53.
pub async fn get_by_id(conn: &mut PgConnection, id: i64, down_time: Duration) -> Result<Option<Service>, StoreError> {
    let row = sqlx::query_as!(
        Record,
        r#"SELECT id, uuid, binary_name, host, disabled, disabled_reason, forced_down, updated_at,
                  NOT forced_down AND now() - coalesce(last_seen_up, created_at) <= make_interval(secs => $2) AS "up!"
           FROM services WHERE id = $1"#,
        id,
        crate::seconds(down_time),
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("services.get_by_id"))?;
    row.map(Record::read).transpose()
}

/// Makes the service known and says that it is alive; returns its id.
pub async fn seen(conn: &mut PgConnection, host: &HostName, binary: &str) -> Result<i64, StoreError> {
    sqlx::query_scalar!(
        "INSERT INTO services (host, binary_name, last_seen_up) VALUES ($1, $2, now())
         ON CONFLICT (host, binary_name) DO UPDATE SET last_seen_up = now(), updated_at = now() RETURNING id",
        host.as_str(),
        binary,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::query("services.seen"))
}

/// Writes a batch of agents' heartbeats: each counts only if the life that sent it is the host's present one.
pub async fn heartbeats(conn: &mut PgConnection, hosts: &[String], incarnations: &[Uuid]) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "UPDATE services s SET last_seen_up = now(), updated_at = now()
         FROM unnest($1::text[], $2::uuid[]) AS beat (host, incarnation)
         JOIN compute_nodes n ON n.host = beat.host AND n.incarnation = beat.incarnation
         WHERE s.id = n.service_id",
        hosts,
        incarnations,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("services.heartbeats"))?;
    Ok(done.rows_affected())
}

/// Writes an operator's wishes for a compute service; `None` leaves a wish as it is, and a reason goes with being disabled.
/// Returns whether there is such a service.
pub async fn set(
    conn: &mut PgConnection,
    host: &HostName,
    disabled: Option<bool>,
    disabled_reason: Option<&str>,
    forced_down: Option<bool>,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE services SET disabled = coalesce($2, disabled),
                disabled_reason = CASE WHEN $2 IS NULL THEN disabled_reason WHEN $2 THEN $3 END,
                forced_down = coalesce($4, forced_down), updated_at = now()
         WHERE host = $1 AND binary_name = 'nova-compute'",
        host.as_str(),
        disabled,
        disabled_reason,
        forced_down,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("services.set"))?;
    Ok(done.rows_affected() == 1)
}

/// Whether an operator asserts that this compute host is fenced.
pub async fn is_forced_down(conn: &mut PgConnection, host: &HostName) -> Result<bool, StoreError> {
    let forced =
        sqlx::query_scalar!("SELECT forced_down FROM services WHERE host = $1 AND binary_name = 'nova-compute'", host.as_str())
            .fetch_optional(conn)
            .await
            .map_err(StoreError::query("services.is_forced_down"))?;
    Ok(forced.unwrap_or(false))
}

/// What came of deleting a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone, and its host with it.
    Done,
    /// There is none.
    Unknown,
    /// Servers are recorded on its host.
    HostsServers,
    /// A migration that has not ended leaves its host, or goes there.
    Migrating,
}

/// Forgets a service, and if it is a compute agent's, its host. The host's row is locked first, as a claim does: no migration can
/// choose the host meanwhile.
pub async fn delete(conn: &mut PgConnection, id: i64) -> Result<Deletion, StoreError> {
    let failed = || StoreError::query("services.delete");
    let service =
        sqlx::query!("SELECT host FROM services WHERE id = $1 FOR UPDATE", id).fetch_optional(&mut *conn).await.map_err(failed())?;
    let Some(service) = service else { return Ok(Deletion::Unknown) };
    let node = sqlx::query!("SELECT host FROM compute_nodes WHERE service_id = $1 FOR UPDATE", id)
        .fetch_optional(&mut *conn)
        .await
        .map_err(failed())?;
    if node.is_some() {
        let busy = sqlx::query!(
            r#"SELECT EXISTS (SELECT FROM servers WHERE host = $1 AND deleted_at IS NULL) AS "servers!",
                      EXISTS (SELECT FROM migrations WHERE status NOT IN ('completed', 'failed', 'cancelled', 'error')
                              AND $1 IN (source_compute, dest_compute, requested_host)) AS "migrations!""#,
            service.host
        )
        .fetch_one(&mut *conn)
        .await
        .map_err(failed())?;
        if busy.servers {
            return Ok(Deletion::HostsServers);
        }
        if busy.migrations {
            return Ok(Deletion::Migrating);
        }
        sqlx::query!("DELETE FROM compute_nodes WHERE service_id = $1", id).execute(&mut *conn).await.map_err(failed())?;
    }
    sqlx::query!("DELETE FROM services WHERE id = $1", id).execute(conn).await.map_err(failed())?;
    Ok(Deletion::Done)
}
