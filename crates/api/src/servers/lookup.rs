//! Finding the server that a path names. What a caller may not see does not exist for it.

use drover_common::ids::ServerId;
use drover_store::PgConnection;
use drover_store::servers::{self, Server};
use uuid::Uuid;

use crate::context::Caller;
use crate::error::ApiError;

/// Reads a UUID in the one form that Nova uses: with dashes.
pub(crate) fn uuid(text: &str) -> Option<ServerId> {
    if text.len() == 36 { Uuid::try_parse(text).ok().map(ServerId) } else { None }
}

/// The server, if it is there, not deleted, and visible to the caller.
pub(crate) async fn live(conn: &mut PgConnection, caller: &Caller, id: &str) -> Result<Server, ApiError> {
    any(conn, caller, id).await?.filter(|server| server.deleted_at.is_none()).ok_or_else(|| ApiError::server_not_found(id))
}

/// The server, if it is there or was, and is visible to the caller.
pub(crate) async fn even_deleted(conn: &mut PgConnection, caller: &Caller, id: &str) -> Result<Server, ApiError> {
    any(conn, caller, id).await?.ok_or_else(|| ApiError::server_not_found(id))
}

async fn any(conn: &mut PgConnection, caller: &Caller, id: &str) -> Result<Option<Server>, ApiError> {
    let Some(id) = uuid(id) else { return Ok(None) };
    let server = servers::get(conn, id).await?;
    Ok(server.filter(|server| caller.is_admin() || server.project_id == caller.project_id))
}
