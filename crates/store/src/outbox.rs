//! The outbox: messages that a transaction promised, so that a broker that is away loses nothing.

use std::time::Duration;

use drover_common::bus::Address;
use drover_common::rpc::Envelope;
use serde::Serialize;
use sqlx::PgConnection;

use crate::error::StoreError;

/// A message that still has to be published.
#[derive(Debug, Clone)]
pub struct Promised {
    /// Its row.
    pub id: i64,
    /// Where to, as text.
    pub address: String,
    /// The envelope, as it was written.
    pub envelope: serde_json::Value,
}

/// Writes a message in the caller's transaction; returns the row's id, for [`mark_published`].
pub async fn append<M: Serialize>(conn: &mut PgConnection, to: &Address, envelope: &Envelope<M>) -> Result<i64, StoreError> {
    let envelope = serde_json::to_value(envelope).map_err(|e| StoreError::row("outbox", "new")(e.into()))?;
    sqlx::query_scalar!("INSERT INTO outbox (address, envelope) VALUES ($1, $2) RETURNING id", to.to_string(), envelope)
        .fetch_one(conn)
        .await
        .map_err(StoreError::query("outbox.append"))
}

/// Says that the broker has it.
pub async fn mark_published(conn: &mut PgConnection, id: i64) -> Result<(), StoreError> {
    sqlx::query!("UPDATE outbox SET published_at = now() WHERE id = $1 AND published_at IS NULL", id)
        .execute(conn)
        .await
        .map_err(StoreError::query("outbox.mark_published"))?;
    Ok(())
}

/// Messages older than `age` that nobody published, locked until the end of the transaction; other conductors pass them by.
pub async fn left_over(conn: &mut PgConnection, age: Duration, limit: i64) -> Result<Vec<Promised>, StoreError> {
    sqlx::query_as!(
        Promised,
        "SELECT id, address, envelope FROM outbox WHERE published_at IS NULL AND created_at < now() - make_interval(secs => $1)
         ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED",
        crate::seconds(age),
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("outbox.left_over"))
}

/// Forgets what was published long ago; at most `limit` rows a call.
pub async fn purge(conn: &mut PgConnection, age: Duration, limit: i64) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE published_at < now() - make_interval(secs => $1) LIMIT $2)",
        crate::seconds(age),
        limit,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("outbox.purge"))?;
    Ok(done.rows_affected())
}
