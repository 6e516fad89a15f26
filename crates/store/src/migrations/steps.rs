//! What happened to a migration, line by line. Phases are written by the database itself, with each change of the status.

use chrono::{DateTime, Utc};
use drover_common::ids::{Attempt, HostName, MigrationId};
use drover_common::migration::Decision;
use sqlx::PgConnection;

use crate::error::StoreError;

/// Lines that are kept of one attempt's decisions: an agent that decides more often has a defect.
const DECISIONS_MAX: i64 = 200;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When, by this database's clock.
    pub at: DateTime<Utc>,
    /// Of which attempt.
    pub attempt: i32,
    /// `phase`, `policy` or `decision`.
    pub kind: String,
    /// The status that was entered, or what was decided.
    pub what: String,
    /// Why.
    pub why: Option<String>,
    /// Since libvirt's job began, for what its source's agent decided.
    pub elapsed_ms: Option<i64>,
}

/// All that happened to a migration, oldest first.
pub async fn of_migration(conn: &mut PgConnection, id: MigrationId) -> Result<Vec<Step>, StoreError> {
    sqlx::query_as!(
        Step,
        "SELECT at, attempt, kind, what, why, elapsed_ms FROM migration_steps WHERE migration_id = $1 ORDER BY id",
        id.0
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("migration_steps.of_migration"))
}

/// Writes what the source decided about an attempt, once, however often it is said.
pub async fn decided(
    conn: &mut PgConnection,
    id: MigrationId,
    attempt: Attempt,
    source: &HostName,
    decision: &Decision,
) -> Result<(), StoreError> {
    let kind = if decision.what == "policy" { "policy" } else { "decision" };
    sqlx::query!(
        "INSERT INTO migration_steps (migration_id, attempt, kind, what, why, elapsed_ms)
         SELECT id, $2, $4, $5, $6, $7 FROM migrations
         WHERE id = $1 AND source_compute = $3 AND attempt BETWEEN $2 AND $2 + 1
           AND (SELECT count(*) FROM migration_steps WHERE migration_id = $1 AND attempt = $2) < $8
         ON CONFLICT ON CONSTRAINT migration_steps_once DO NOTHING",
        id.0,
        attempt.0,
        source.as_str(),
        kind,
        decision.what,
        decision.why,
        decision.elapsed_ms,
        DECISIONS_MAX,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("migration_steps.decided"))?;
    Ok(())
}

/// Writes what a conductor decided.
pub async fn note(conn: &mut PgConnection, id: MigrationId, attempt: Attempt, what: &str, why: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO migration_steps (migration_id, attempt, kind, what, why) VALUES ($1, $2, 'decision', $3, $4)",
        id.0,
        attempt.0,
        what,
        why,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("migration_steps.note"))?;
    Ok(())
}
