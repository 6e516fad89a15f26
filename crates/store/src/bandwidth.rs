//! The links between the hosts, and the share that each copy has of them. Who gets what is decided elsewhere; here it is read and kept.

use drover_common::ids::{Attempt, HostName, MigrationId, ServerId};
use sqlx::PgConnection;

use crate::error::{BadValue, StoreError};

/// One key for all conductors: two that share out at once would each undo the other's.
const SHARES_LOCK: i64 = 0x6472_6f76_6573;

/// A copy that runs or is about to.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Which migration.
    pub migration: MigrationId,
    /// Which attempt.
    pub attempt: Attempt,
    /// The guest.
    pub server: ServerId,
    /// From here.
    pub source: HostName,
    /// To there.
    pub destination: HostName,
    /// What one migration from there may take, MiB/s; 0: no limit.
    pub limit_mib: u64,
    /// What the source's link may carry away, MiB/s; 0: no limit.
    pub source_link_mib: u64,
    /// What the destination's link may bring in, MiB/s; 0: no limit.
    pub destination_link_mib: u64,
    /// Its present share, MiB/s.
    pub share_mib: Option<u64>,
    /// What its agent says that it runs under, MiB/s; 0: no limit.
    pub in_force_mib: Option<u64>,
}

/// Keeps all other conductors from sharing out until the end of the transaction.
pub async fn lock(conn: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", SHARES_LOCK)
        .execute(conn)
        .await
        .map_err(StoreError::query("bandwidth.lock"))?;
    Ok(())
}

/// All copies, by number; none while no link has a limit and none had.
pub async fn streams(conn: &mut PgConnection) -> Result<Vec<Stream>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT m.id, m.attempt, m.server_uuid, c.source_host, c.dest_host, m.bandwidth_mib,
                  (m.progress ->> 'bandwidth_mib')::bigint AS in_force_mib,
                  s.migration_bandwidth_mib AS limit_mib, s.link_bandwidth_mib AS source_link_mib,
                  d.link_bandwidth_mib AS destination_link_mib
           FROM claims c
           JOIN migrations m ON m.id = c.migration_id
           JOIN compute_nodes s ON s.host = c.source_host
           JOIN compute_nodes d ON d.host = c.dest_host
           WHERE m.status IN ('preparing', 'running', 'running (post-copy)')
             AND (m.bandwidth_mib IS NOT NULL OR EXISTS (SELECT FROM compute_nodes WHERE link_bandwidth_mib > 0))
           ORDER BY m.id"#
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("bandwidth.streams"))?;
    let name = |host: String, id: i64| HostName::new(host).map_err(BadValue::from).map_err(StoreError::row("claims", id));
    rows.into_iter()
        .map(|row| {
            Ok(Stream {
                migration: MigrationId(row.id),
                attempt: Attempt(row.attempt),
                server: ServerId(row.server_uuid),
                source: name(row.source_host, row.id)?,
                destination: name(row.dest_host, row.id)?,
                limit_mib: row.limit_mib.unsigned_abs(),
                source_link_mib: row.source_link_mib.unsigned_abs(),
                destination_link_mib: row.destination_link_mib.unsigned_abs(),
                share_mib: row.bandwidth_mib.map(i64::unsigned_abs),
                in_force_mib: row.in_force_mib.map(i64::unsigned_abs),
            })
        })
        .collect()
}

/// Writes the share of each of these copies that is still one.
pub async fn set(conn: &mut PgConnection, shares: &[(MigrationId, Option<u64>)]) -> Result<(), StoreError> {
    let ids: Vec<i64> = shares.iter().map(|(id, _)| id.0).collect();
    let mib: Vec<Option<i64>> = shares.iter().map(|(_, share)| share.map(stored)).collect();
    sqlx::query!(
        "UPDATE migrations m SET bandwidth_mib = share.mib FROM unnest($1::bigint[], $2::bigint[]) AS share (id, mib)
         WHERE m.id = share.id AND m.status IN ('preparing', 'running', 'running (post-copy)')",
        &ids[..],
        &mib[..] as &[Option<i64>],
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("bandwidth.set"))?;
    Ok(())
}

/// MiB/s as they are stored.
pub(crate) fn stored(mib: u64) -> i64 {
    i64::try_from(mib).unwrap_or(i64::MAX)
}
