//! Locks: against everybody but admins, set by the server's own project or by an admin.

use drover_common::ids::ServerId;
use drover_common::names;
use sqlx::PgConnection;

use crate::error::StoreError;

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockedBy {
    /// Somebody in the server's own project.
    Owner,
    /// An admin from elsewhere.
    Admin,
}
names!("locked_by", LockedBy { Owner = "owner", Admin = "admin" });

/// Locks, or changes who holds the lock and why. An owner does not take over a lock that is there (Nova: `compute.api.lock`).
/// Returns whether anything was changed.
pub async fn lock(conn: &mut PgConnection, id: ServerId, by: LockedBy, reason: Option<&str>) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE servers SET locked = true, locked_by = $2, locked_reason = $3, updated_at = now()
         WHERE uuid = $1 AND deleted_at IS NULL AND NOT (locked AND $2 = 'owner')",
        id.0,
        by.as_str(),
        reason,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.lock"))?;
    Ok(done.rows_affected() == 1)
}

/// Unlocks. With `only`, unless somebody else holds the lock by now; returns whether the server is free of it.
pub async fn unlock(conn: &mut PgConnection, id: ServerId, only: Option<LockedBy>) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE servers SET locked = false, locked_by = NULL, locked_reason = NULL, updated_at = now()
         WHERE uuid = $1 AND deleted_at IS NULL AND ($2::text IS NULL OR locked_by IS NULL OR locked_by = $2)",
        id.0,
        only.map(LockedBy::as_str),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.unlock"))?;
    Ok(done.rows_affected() == 1)
}
