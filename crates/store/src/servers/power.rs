//! What power actions write to servers.

use drover_common::ids::{Incarnation, ServerId};
use drover_common::power::PowerAction;
use drover_common::server::{PowerState, VmState};
use sqlx::PgConnection;

use super::{Record, Server};
use crate::error::StoreError;

/// Takes the server for a power action if its state allows it (Nova: `@check_instance_state`). Returns it as it is now; `None`: it
/// does not, or the server is not there, and nothing was changed.
pub async fn claim_for(conn: &mut PgConnection, id: ServerId, action: PowerAction) -> Result<Option<Server>, StoreError> {
    let rule = action.rule();
    let from: Vec<String> = rule.from.iter().map(ToString::to_string).collect();
    let row = sqlx::query_as!(
        Record,
        "UPDATE servers SET task_state = $2, updated_at = now()
         WHERE uuid = $1 AND (task_state IS NULL OR $4) AND vm_state = ANY ($3) AND deleted_at IS NULL
         RETURNING *",
        id.0,
        rule.task_state.as_str(),
        &from,
        action.waits_for_others(),
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("servers.claim_for"))?;
    row.map(Record::read).transpose()
}

/// The end of a power action: how the guest is. The server is free, unless something else was begun meanwhile. `observed` is the
/// report that says so, if there is one.
pub async fn settle_after(
    conn: &mut PgConnection,
    id: ServerId,
    action: PowerAction,
    (power_state, vm_state): (PowerState, VmState),
    observed: Option<(Incarnation, i64)>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE servers SET power_state = $3, vm_state = $4, task_state = nullif(task_state, $2),
                observed_incarnation = coalesce($5, observed_incarnation), observed_sequence = coalesce($6, observed_sequence),
                updated_at = now()
         WHERE uuid = $1 AND deleted_at IS NULL",
        id.0,
        action.rule().task_state.as_str(),
        power_state.code(),
        vm_state.as_str(),
        observed.map(|(life, _)| life.0),
        observed.map(|(_, sequence)| sequence),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.settle_after"))?;
    Ok(())
}
