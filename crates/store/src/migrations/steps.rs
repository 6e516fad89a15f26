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

/// Writes what the source decided about an attempt, in its order and once, however often it is said.
pub async fn decided(
    conn: &mut PgConnection,
    id: MigrationId,
    attempt: Attempt,
    source: &HostName,
    decisions: &[Decision],
) -> Result<(), StoreError> {
    let what: Vec<String> = decisions.iter().map(|decision| decision.what.clone()).collect();
    let why: Vec<String> = decisions.iter().map(|decision| decision.why.clone()).collect();
    let elapsed_ms: Vec<i64> = decisions.iter().map(|decision| decision.elapsed_ms).collect();
    sqlx::query!(
        "INSERT INTO migration_steps (migration_id, attempt, kind, what, why, elapsed_ms)
         SELECT m.id, $2, CASE d.what WHEN 'policy' THEN 'policy' ELSE 'decision' END, d.what, d.why, d.elapsed_ms
         FROM migrations m, unnest($4::text[], $5::text[], $6::bigint[]) WITH ORDINALITY AS d (what, why, elapsed_ms, place)
         WHERE m.id = $1 AND m.source_compute = $3 AND m.attempt BETWEEN $2 AND $2 + 1
           AND d.place + (SELECT count(*) FROM migration_steps WHERE migration_id = $1 AND attempt = $2) <= $7
         ORDER BY d.place
         ON CONFLICT ON CONSTRAINT migration_steps_once DO NOTHING",
        id.0,
        attempt.0,
        source.as_str(),
        &what,
        &why,
        &elapsed_ms,
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
