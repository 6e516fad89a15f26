//! The beginning of every change of what owners stick on a server.

use drover_common::server::VmState;
use drover_store::Transaction;
use drover_store::servers::{self, Server};

use super::lookup;
use super::state::Verb;
use crate::context::Call;
use crate::error::ApiError;
use crate::policy::Rule;
use crate::state::AppState;

/// A transaction that has the server's row locked. Refuses in Nova's order: the server, the policy, the lock, the state. What is
/// being done to the server does not matter: it can be labelled while it migrates.
pub(super) async fn begin(
    app: &AppState,
    call: &Call,
    id: &str,
    rule: Rule,
    what: &'static str,
) -> Result<(Transaction, Server), ApiError> {
    let mut tx = app.store().begin().await?;
    let server = lookup::live(&mut tx, call.caller(), id).await?;
    app.policy().enforce(rule, call.caller(), &server.project_id)?;
    let server = servers::lock_all(&mut tx, &[server.uuid.0]).await?.pop().filter(|server| server.deleted_at.is_none());
    let server = server.ok_or_else(|| ApiError::server_not_found(id))?;
    if server.locked && !call.caller().is_admin() {
        return Err(ApiError::locked(server.uuid));
    }
    if !matches!(server.vm_state, VmState::Active | VmState::Paused | VmState::Stopped) {
        let verb = Verb { name: what, mount: call.mount };
        return Err(verb.refused(server.uuid, "vm_state", server.vm_state.as_str()));
    }
    Ok((tx, server))
}
