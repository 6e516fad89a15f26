//! The audit trail: who did what to what, and why.

use sqlx::PgConnection;

use crate::error::StoreError;

/// One line of it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Who; none for what the services do by themselves.
    pub user_id: Option<&'a str>,
    /// In which project.
    pub project_id: Option<&'a str>,
    /// By which API request.
    pub request_id: Option<&'a str>,
    /// What, in Nova's words where it has one.
    pub action: &'a str,
    /// To what: `server <uuid>`, `host <name>`.
    pub target: &'a str,
    /// Why, or with which outcome.
    pub details: Option<&'a str>,
}

/// Writes a line in the caller's transaction.
pub async fn write(conn: &mut PgConnection, entry: Entry<'_>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO audit (user_id, project_id, request_id, action, target, details) VALUES ($1, $2, $3, $4, $5, $6)",
        entry.user_id,
        entry.project_id,
        entry.request_id,
        entry.action,
        entry.target,
        entry.details,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("audit.write"))?;
    Ok(())
}
