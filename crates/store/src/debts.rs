//! Cleanup debts: what a host still owes after its migration was closed without it.

use drover_common::ids::{Attempt, HostName, MigrationId, ServerId};
use drover_common::names;
use drover_common::rpc::latest::MigrateData;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

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

struct Record {
    id: i64,
    migration_id: i64,
    server_uuid: Uuid,
    host: String,
    side: String,
    left_by: i32,
    migrate_data: Value,
}

impl Record {
    fn read(self) -> Result<Debt, StoreError> {
        let id = self.id;
        self.parse().map_err(StoreError::row("cleanup_debts", id))
    }

    fn parse(self) -> Result<Debt, BadValue> {
        Ok(Debt {
            id: self.id,
            migration: MigrationId(self.migration_id),
            server: ServerId(self.server_uuid),
            host: HostName::new(self.host)?,
            side: self.side.parse()?,
            left_by: Attempt(self.left_by),
            data: serde_json::from_value(self.migrate_data)?,
        })
    }
}

/// Debts that are open, of one host or of all, the one that was tried longest ago first; at most `limit`. One that cannot be read
/// is an error of its own and keeps none of the others back.
pub async fn open(
    conn: &mut PgConnection,
    host: Option<&HostName>,
    limit: i64,
) -> Result<Vec<Result<Debt, StoreError>>, StoreError> {
    let rows = sqlx::query_as!(
        Record,
        "SELECT id, migration_id, server_uuid, host, side, left_by, migrate_data FROM cleanup_debts
         WHERE paid_at IS NULL AND ($1::text IS NULL OR host = $1) ORDER BY tried_at NULLS FIRST, id LIMIT $2",
        host.map(HostName::as_str),
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("debts.open"))?;
    Ok(rows.into_iter().map(Record::read).collect())
}

/// One debt that is open.
pub async fn get_open(conn: &mut PgConnection, id: i64) -> Result<Option<Debt>, StoreError> {
    let row = sqlx::query_as!(
        Record,
        "SELECT id, migration_id, server_uuid, host, side, left_by, migrate_data FROM cleanup_debts WHERE id = $1 AND paid_at IS NULL",
        id,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("debts.get_open"))?;
    row.map(Record::read).transpose()
}

/// Servers of which this host may still have a copy that is not the guest.
pub async fn servers_on_host(conn: &mut PgConnection, host: &HostName) -> Result<Vec<Uuid>, StoreError> {
    sqlx::query_scalar!("SELECT DISTINCT server_uuid FROM cleanup_debts WHERE host = $1 AND paid_at IS NULL", host.as_str())
        .fetch_all(conn)
        .await
        .map_err(StoreError::query("debts.servers_on_host"))
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
    sqlx::query!("UPDATE cleanup_debts SET last_error = $2, tried_at = now() WHERE id = $1", id, why)
        .execute(conn)
        .await
        .map_err(StoreError::query("debts.failed"))?;
    Ok(())
}
