//! Findings: what an operator should look at.

use chrono::{DateTime, Utc};
use drover_common::ids::{HostName, ServerId};
use drover_common::names;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{BadValue, StoreError};

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FindingKind {
    /// Two hosts have an active copy of one guest.
    OwnershipConflict,
    /// libvirt migrates a guest that no migration of ours is about.
    ForeignJob,
    /// An inactive copy beside the active one.
    Leftover,
    /// Facts that fit no rule: nothing is touched until an operator chose.
    Undecidable,
}
names!("finding", FindingKind {
    OwnershipConflict = "ownership_conflict",
    ForeignJob = "foreign_job",
    Leftover = "leftover",
    Undecidable = "undecidable",
});

/// A row of `findings`.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Its id.
    pub id: i64,
    /// `kind`, as stored.
    pub kind: String,
    /// The guest.
    pub server_uuid: Uuid,
    /// Where.
    pub host: String,
    /// For people.
    pub details: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// Raises a finding, or leaves the open one of the same kind as it is. Returns whether it is new.
pub async fn raise(
    conn: &mut PgConnection,
    kind: FindingKind,
    server: ServerId,
    host: &HostName,
    details: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "INSERT INTO findings (kind, server_uuid, host, details) VALUES ($1, $2, $3, $4)
         ON CONFLICT (kind, server_uuid, host) WHERE resolved_at IS NULL DO NOTHING",
        kind.as_str(),
        server.0,
        host.as_str(),
        details,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("findings.raise"))?;
    Ok(done.rows_affected() == 1)
}

/// Says that these are no longer so. `host` none: on no host.
pub async fn resolve(
    conn: &mut PgConnection,
    kinds: &[FindingKind],
    server: ServerId,
    host: Option<&HostName>,
) -> Result<u64, StoreError> {
    let kinds: Vec<String> = kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
    let done = sqlx::query!(
        "UPDATE findings SET resolved_at = now()
         WHERE kind = ANY ($1) AND server_uuid = $2 AND ($3::text IS NULL OR host = $3) AND resolved_at IS NULL",
        &kinds[..],
        server.0,
        host.map(HostName::as_str),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("findings.resolve"))?;
    Ok(done.rows_affected())
}

/// Everything that was found about a guest on one host is over: it has no copy there any more.
pub async fn resolve_all_on_host(conn: &mut PgConnection, server: ServerId, host: &HostName) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "UPDATE findings SET resolved_at = now() WHERE server_uuid = $1 AND host = $2 AND resolved_at IS NULL",
        server.0,
        host.as_str(),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("findings.resolve_all_on_host"))?;
    Ok(done.rows_affected())
}

/// Guests about which something is open on this host.
pub async fn servers_on_host(conn: &mut PgConnection, host: &HostName) -> Result<Vec<Uuid>, StoreError> {
    sqlx::query_scalar!("SELECT DISTINCT server_uuid FROM findings WHERE host = $1 AND resolved_at IS NULL", host.as_str())
        .fetch_all(conn)
        .await
        .map_err(StoreError::query("findings.servers_on_host"))
}

/// Other hosts that have an active copy of this guest, by what was found.
pub async fn hosts_in_conflict(conn: &mut PgConnection, server: ServerId, but: &HostName) -> Result<Vec<HostName>, StoreError> {
    let hosts = sqlx::query_scalar!(
        "SELECT host FROM findings WHERE kind = 'ownership_conflict' AND server_uuid = $1 AND host <> $2 AND resolved_at IS NULL",
        server.0,
        but.as_str(),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("findings.hosts_in_conflict"))?;
    hosts.into_iter().map(|host| HostName::new(host).map_err(BadValue::from).map_err(StoreError::row("findings", server))).collect()
}

/// All that is open, oldest first.
pub async fn open(conn: &mut PgConnection) -> Result<Vec<Finding>, StoreError> {
    sqlx::query_as!(
        Finding,
        "SELECT id, kind, server_uuid, host, details, created_at FROM findings WHERE resolved_at IS NULL ORDER BY id LIMIT 1000"
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("findings.open"))
}
