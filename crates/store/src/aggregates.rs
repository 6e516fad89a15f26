//! Host aggregates and availability zones.
//!
//! A host is in one zone at most. Zones are changed rarely: every change that could touch one locks the table, looks, and writes.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;

/// The key that makes an aggregate a zone.
pub const AVAILABILITY_ZONE: &str = "availability_zone";
/// The constraint that keeps names apart.
pub const NAME_KEY: &str = "aggregates_name_key";

/// A row of `aggregates`, with its hosts.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// Nova's integer id.
    pub id: i64,
    /// The id since 2.41.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Key-value pairs.
    pub metadata: serde_json::Value,
    /// First made.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: Option<DateTime<Utc>>,
    /// Its hosts, by name.
    pub hosts: Vec<String>,
}

impl Aggregate {
    /// The zone that it makes, if it makes one.
    pub fn availability_zone(&self) -> Option<&str> {
        self.metadata.get(AVAILABILITY_ZONE).and_then(serde_json::Value::as_str)
    }
}

/// All aggregates, or one, in the order of their ids.
pub async fn list(conn: &mut PgConnection, only: Option<i64>) -> Result<Vec<Aggregate>, StoreError> {
    sqlx::query_as!(
        Aggregate,
        r#"SELECT id, uuid, name, metadata, created_at, updated_at,
                  ARRAY(SELECT host FROM aggregate_hosts h WHERE h.aggregate_id = a.id ORDER BY host) AS "hosts!"
           FROM aggregates a WHERE $1::bigint IS NULL OR id = $1 ORDER BY id"#,
        only
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("aggregates.list"))
}

/// One aggregate.
pub async fn get(conn: &mut PgConnection, id: i64) -> Result<Option<Aggregate>, StoreError> {
    Ok(list(conn, Some(id)).await?.pop())
}

/// Keeps everybody else from changing aggregates until the end of the transaction; reading goes on.
pub async fn lock(conn: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query!("LOCK TABLE aggregates IN SHARE ROW EXCLUSIVE MODE")
        .execute(conn)
        .await
        .map_err(StoreError::query("aggregates.lock"))?;
    Ok(())
}

/// Makes one; breaks [`NAME_KEY`] when the name is taken.
pub async fn insert(conn: &mut PgConnection, name: &str, metadata: &serde_json::Value) -> Result<i64, StoreError> {
    sqlx::query_scalar!("INSERT INTO aggregates (name, metadata) VALUES ($1, $2) RETURNING id", name, metadata)
        .fetch_one(conn)
        .await
        .map_err(StoreError::query("aggregates.insert"))
}

/// Writes name and metadata; breaks [`NAME_KEY`] when the name is taken.
pub async fn update(conn: &mut PgConnection, id: i64, name: &str, metadata: &serde_json::Value) -> Result<(), StoreError> {
    sqlx::query!("UPDATE aggregates SET name = $2, metadata = $3, updated_at = now() WHERE id = $1", id, name, metadata)
        .execute(conn)
        .await
        .map_err(StoreError::query("aggregates.update"))?;
    Ok(())
}

/// Removes one that has no hosts.
pub async fn delete(conn: &mut PgConnection, id: i64) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM aggregates WHERE id = $1", id).execute(conn).await.map_err(StoreError::query("aggregates.delete"))?;
    Ok(())
}

/// Puts a host in.
pub async fn add_host(conn: &mut PgConnection, id: i64, host: &str) -> Result<(), StoreError> {
    sqlx::query!("INSERT INTO aggregate_hosts (aggregate_id, host) VALUES ($1, $2)", id, host)
        .execute(conn)
        .await
        .map_err(StoreError::query("aggregates.add_host"))?;
    Ok(())
}

/// Takes a host out; returns whether it was in.
pub async fn remove_host(conn: &mut PgConnection, id: i64, host: &str) -> Result<bool, StoreError> {
    let done = sqlx::query!("DELETE FROM aggregate_hosts WHERE aggregate_id = $1 AND host = $2", id, host)
        .execute(conn)
        .await
        .map_err(StoreError::query("aggregates.remove_host"))?;
    Ok(done.rows_affected() == 1)
}

/// The zone of each host that is in one.
pub async fn zones(conn: &mut PgConnection) -> Result<HashMap<String, String>, StoreError> {
    let rows = sqlx::query!(r#"SELECT zone_host AS "host!", zone AS "zone!" FROM host_zones"#)
        .fetch_all(conn)
        .await
        .map_err(StoreError::query("aggregates.zones"))?;
    Ok(rows.into_iter().map(|row| (row.host, row.zone)).collect())
}

/// One of these hosts that is in another zone already through another aggregate than this one: (host, zone).
pub async fn in_another_zone(
    conn: &mut PgConnection,
    aggregate: i64,
    hosts: &[String],
    zone: &str,
) -> Result<Option<(String, String)>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT h.host AS "host!", a.metadata ->> 'availability_zone' AS "zone!"
           FROM aggregate_hosts h JOIN aggregates a ON a.id = h.aggregate_id
           WHERE h.aggregate_id <> $1 AND h.host = ANY ($2)
             AND a.metadata ? 'availability_zone' AND a.metadata ->> 'availability_zone' <> $3
           ORDER BY h.host LIMIT 1"#,
        aggregate,
        hosts,
        zone,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("aggregates.in_another_zone"))?;
    Ok(row.map(|row| (row.host, row.zone)))
}

/// One of these hosts that has a server which must stay in another zone than this one: (host, the server's zone).
pub async fn with_pinned_server(
    conn: &mut PgConnection,
    hosts: &[String],
    zone: &str,
) -> Result<Option<(String, String)>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT host, pinned_availability_zone AS "zone!" FROM servers
           WHERE deleted_at IS NULL AND host = ANY ($1) AND pinned_availability_zone <> $2 ORDER BY id LIMIT 1"#,
        hosts,
        zone,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("aggregates.with_pinned_server"))?;
    Ok(row.map(|row| (row.host, row.zone)))
}
