//! Changes of server groups.

use drover_common::server_group::GroupPolicy;
use drover_store::server_groups::{self, NewServerGroup, ServerGroup};
use drover_store::{audit, commit};

use super::migrations::entry;
use crate::context::Asked;
use crate::error::ApiError;
use crate::state::AppState;

/// Makes one for the caller's project.
pub(crate) async fn create(
    app: &AppState,
    asked: &Asked,
    name: &str,
    policy: GroupPolicy,
    max_server_per_host: Option<i32>,
) -> Result<ServerGroup, ApiError> {
    let caller = &asked.caller;
    let new = NewServerGroup { name, project_id: &caller.project_id, user_id: &caller.user_id, policy, max_server_per_host };
    let mut tx = app.store().begin().await?;
    let uuid = server_groups::insert(&mut tx, &new).await?;
    let details = format!("{name}, {policy}");
    audit::write(&mut tx, entry(asked, "os-server-groups:create", &format!("server group {uuid}"), Some(&details))).await?;
    let group = server_groups::get(&mut tx, uuid).await?;
    commit(tx).await?;
    group.ok_or_else(|| ApiError::NotFound(format!("Instance group {uuid} could not be found.")))
}

/// Removes one; its members are in none then.
pub(crate) async fn delete(app: &AppState, asked: &Asked, group: &ServerGroup) -> Result<(), ApiError> {
    let mut tx = app.store().begin().await?;
    if !server_groups::delete(&mut tx, group.uuid).await? {
        return Err(ApiError::NotFound(format!("Instance group {} could not be found.", group.uuid)));
    }
    let target = format!("server group {}", group.uuid);
    audit::write(&mut tx, entry(asked, "os-server-groups:delete", &target, Some(&group.name))).await?;
    Ok(commit(tx).await?)
}
