//! The refusal for a server that is not free, in Nova's order: `vm_state` first, then `task_state`.

use drover_common::ids::ServerId;
use drover_common::server::{TaskState, VmState};
use drover_store::{PgConnection, StoreError, migrations, power, servers};

use crate::error::ApiError;
use crate::servers::state::Verb;

/// Why the server cannot be had by an action that is allowed `from` these states. What has it is named: a migration with its number
/// (Nova says 500 to the loser of a race). After `os-resetState` something may still be under way although `task_state` is none.
pub(crate) async fn refusal(conn: &mut PgConnection, id: ServerId, from: &[VmState], verb: Verb) -> Result<ApiError, StoreError> {
    let Some(server) = servers::get(conn, id).await?.filter(|server| server.deleted_at.is_none()) else {
        return Ok(ApiError::server_not_found(&id.to_string()));
    };
    let open = migrations::open_of_server(conn, id).await?;
    let under_way = power::open_of_server(conn, id).await?;
    let (attribute, state) = if from.contains(&server.vm_state) {
        let recorded = server.task_state.or_else(|| open.as_ref().map(|_| TaskState::Migrating));
        let task_state = recorded.or_else(|| under_way.first().map(|power| power.action.rule().task_state));
        // It was free again by the time we looked.
        ("task_state", task_state.map_or("None", TaskState::as_str))
    } else {
        ("vm_state", server.vm_state.as_str())
    };
    let named = open.map_or_else(String::new, |migration| format!(": migration {} is {}", migration.id, migration.status));
    Ok(match verb.refused(id, attribute, state) {
        ApiError::Conflict(text) => ApiError::Conflict(text + &named),
        other => other,
    })
}
