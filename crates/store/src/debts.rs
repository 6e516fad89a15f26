//! Cleanup debts: what a host still owes after its migration was closed without it.

use drover_common::ids::{Attempt, HostName, MigrationId, ServerId};
use drover_common::names;
use drover_common::rpc::latest::MigrateData;
use sqlx::PgConnection;

use crate::error::{BadValue, StoreError};

/// Which part the host had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// It had the guest before.
    Source,
    /// It was to have it.
    Destination,
}
names!("side", Side { Source = "source", Destination = "destination" });

/// A row of `cleanup_debts`.
#[derive(Debug, Clone)]
pub struct Debt {
    /// Its id.
    pub id: i64,
    /// The migration that left something.
    pub migration: MigrationId,
    /// The guest.
    pub server: ServerId,
    /// Who owes.
    pub host: HostName,
    /// Its part.
    pub side: Side,
    /// The attempt that left it.
    pub left_by: Attempt,
    /// What had been agreed on.
    pub data: MigrateData,
}

/// Writes down a debt; the same one twice is one.
pub async fn owe(
    conn: &mut PgConnection,
    (migration, server): (MigrationId, ServerId),
    host: &HostName,
    side: Side,
    left_by: Attempt,
    data: &MigrateData,
) -> Result<(), StoreError> {
    let data = serde_json::to_value(data).map_err(BadValue::from).map_err(StoreError::row("cleanup_debts", migration))?;
    sqlx::query!(
        "INSERT INTO cleanup_debts (migration_id, server_uuid, host, side, left_by, migrate_data) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (migration_id, host, left_by) DO NOTHING",
        migration.0,
        server.0,
        host.as_str(),
        side.as_str(),
        left_by.0,
        data,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("debts.owe"))?;
    Ok(())
}

/// Debts that are open, of one host or of all, oldest first.
pub async fn open(conn: &mut PgConnection, host: Option<&HostName>) -> Result<Vec<Debt>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, migration_id, server_uuid, host, side, left_by, migrate_data FROM cleanup_debts
         WHERE paid_at IS NULL AND ($1::text IS NULL OR host = $1) ORDER BY id LIMIT 1000",
        host.map(HostName::as_str),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("debts.open"))?;
    rows.into_iter()
        .map(|row| {
            let read = || {
                Ok(Debt {
                    id: row.id,
                    migration: MigrationId(row.migration_id),
                    server: ServerId(row.server_uuid),
                    host: HostName::new(row.host)?,
                    side: row.side.parse()?,
                    left_by: Attempt(row.left_by),
                    data: serde_json::from_value(row.migrate_data)?,
                })
            };
            read().map_err(StoreError::row("cleanup_debts", row.id))
        })
        .collect()
}

/// One debt that is open.
pub async fn get_open(conn: &mut PgConnection, id: i64) -> Result<Option<Debt>, StoreError> {
    Ok(open(conn, None).await?.into_iter().find(|debt| debt.id == id))
}

/// It is paid.
pub async fn paid(conn: &mut PgConnection, id: i64) -> Result<(), StoreError> {
    sqlx::query!("UPDATE cleanup_debts SET paid_at = now(), last_error = NULL WHERE id = $1", id)
        .execute(conn)
        .await
        .map_err(StoreError::query("debts.paid"))?;
    Ok(())
}

/// It could not be paid yet, and why.
pub async fn failed(conn: &mut PgConnection, id: i64, why: &str) -> Result<(), StoreError> {
    sqlx::query!("UPDATE cleanup_debts SET last_error = $2 WHERE id = $1", id, why)
        .execute(conn)
        .await
        .map_err(StoreError::query("debts.failed"))?;
    Ok(())
}
