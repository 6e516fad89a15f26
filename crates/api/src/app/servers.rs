//! What changes a server's record and needs no host: one transaction each, with its instance action and its line of audit.

use drover_common::server::VmState;
use drover_store::actions::{self, names};
use drover_store::servers::{self, LockedBy, Server};
use drover_store::{StoreError, Transaction, audit, commit};

use super::migrations::entry;
use crate::context::Asked;
use crate::error::ApiError;
use crate::state::AppState;

/// Says what state the server is in, and that nothing is being done to it.
pub(crate) async fn reset_state(app: &AppState, asked: &Asked, server: &Server, vm_state: VmState) -> Result<(), ApiError> {
    let mut tx = app.store().begin().await?;
    if !servers::reset_state(&mut tx, server.uuid, vm_state).await? {
        return Err(ApiError::server_not_found(&server.uuid.to_string()));
    }
    let task_state = server.task_state.map_or("nothing", drover_common::server::TaskState::as_str);
    let details = format!("{} to {vm_state}, while {task_state} was being done", server.vm_state);
    record(&mut tx, asked, server, names::RESET_STATE, Some(&details)).await?;
    commit(tx).await?;
    tracing::info!(server.id = %server.uuid, vm_state = %vm_state, "state reset");
    Ok(())
}

/// Locks the server; a lock that somebody else holds is left alone unless the caller is an admin.
pub(crate) async fn lock(
    app: &AppState,
    asked: &Asked,
    server: &Server,
    by: LockedBy,
    reason: Option<&str>,
) -> Result<(), ApiError> {
    let mut tx = app.store().begin().await?;
    if servers::lock(&mut tx, server.uuid, by, reason).await? {
        record(&mut tx, asked, server, names::LOCK, reason).await?;
        commit(tx).await?;
        tracing::info!(server.id = %server.uuid, by = %by, reason, "server locked");
    }
    Ok(())
}

/// Unlocks the server, with `only` unless somebody else holds the lock; returns whether it is unlocked.
pub(crate) async fn unlock(app: &AppState, asked: &Asked, server: &Server, only: Option<LockedBy>) -> Result<bool, ApiError> {
    let mut tx = app.store().begin().await?;
    let done = servers::unlock(&mut tx, server.uuid, only).await?;
    if done {
        record(&mut tx, asked, server, names::UNLOCK, None).await?;
        commit(tx).await?;
        tracing::info!(server.id = %server.uuid, "server unlocked");
    }
    Ok(done)
}

/// The instance action, over as soon as it is written, and the line of audit.
async fn record(
    tx: &mut Transaction,
    asked: &Asked,
    server: &Server,
    action: &'static str,
    details: Option<&str>,
) -> Result<(), StoreError> {
    let caller = &asked.caller;
    actions::start(tx, server.uuid, action, &asked.request_id, &caller.user_id, &caller.project_id).await?;
    audit::write(tx, entry(asked, action, &format!("server {}", server.uuid), details)).await
}
