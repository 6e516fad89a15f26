//! Whether an operator holds back new migrations. Minded where slots are given: [`crate::claims`], and where those who wait for
//! one are looked for: [`crate::line::whose_turn`].

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::error::StoreError;

/// What a migration waits for that is held back begins with this.
pub const WAITING_FOR: &str = "paused by ";

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Why, in the operator's words.
    pub reason: String,
    /// Who.
    pub paused_by: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

impl Pause {
    /// What a held-back migration waits for.
    pub fn waiting_for(by: &str, reason: &str) -> String {
        if reason.is_empty() { format!("{WAITING_FOR}{by}") } else { format!("{WAITING_FOR}{by}: {reason}") }
    }
}

/// Begins a pause; one that is there gets the new reason and keeps its beginning.
pub async fn begin(conn: &mut PgConnection, by: &str, reason: &str) -> Result<Pause, StoreError> {
    sqlx::query_as!(
        Pause,
        "INSERT INTO pause (reason, paused_by) VALUES ($1, $2)
         ON CONFLICT (one) DO UPDATE SET reason = excluded.reason, paused_by = excluded.paused_by
         RETURNING reason, paused_by, since",
        reason,
        by,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::query("pause.begin"))
}

/// Ends it. False when there was none.
pub async fn end(conn: &mut PgConnection) -> Result<bool, StoreError> {
    let done = sqlx::query!("DELETE FROM pause").execute(conn).await.map_err(StoreError::query("pause.end"))?;
    Ok(done.rows_affected() == 1)
}

/// The pause, if there is one.
pub async fn get(conn: &mut PgConnection) -> Result<Option<Pause>, StoreError> {
    sqlx::query_as!(Pause, "SELECT reason, paused_by, since FROM pause")
        .fetch_optional(conn)
        .await
        .map_err(StoreError::query("pause.get"))
}
