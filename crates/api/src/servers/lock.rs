//! `lock` and `unlock`. A lock keeps everybody but admins from changing the server. Who holds it counts: an owner cannot undo an
//! admin's.

use std::sync::LazyLock;

use drover_store::servers::{LockedBy, Server};
use serde_json::json;

use super::lookup;
use crate::app::servers as write;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::Body;
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;
use crate::validation::Schemas;
use crate::validation::types::text;

pub(in crate::servers) static LOCK: LazyLock<Schemas> = LazyLock::new(|| {
    let arguments = json!({"type": ["object", "null"], "properties": {"locked_reason": text()}, "additionalProperties": false});
    let object =
        |properties| json!({"type": "object", "properties": properties, "required": ["lock"], "additionalProperties": false});
    Schemas::new([(v2(1), object(json!({"lock": {}}))), (v2(73), object(json!({"lock": arguments})))])
});

/// `{"lock": …}`
pub(super) async fn lock(app: &AppState, call: &Call, id: &str, body: &Body) -> Result<(), ApiError> {
    LOCK.check_body(call.version, body)?;
    let server = find(app, call, id, Rule::ServersLock).await?;
    let reason = body.value["lock"]["locked_reason"].as_str().filter(|_| call.version >= v2(73));
    write::lock(app, &call.asked, &server, holder(call, &server), reason).await
}

/// `{"unlock": …}`
pub(super) async fn unlock(app: &AppState, call: &Call, id: &str) -> Result<(), ApiError> {
    let server = find(app, call, id, Rule::ServersUnlock).await?;
    let caller = holder(call, &server);
    if app.policy().allows(Rule::ServersUnlockOverride, call.caller(), &server.project_id) {
        write::unlock(app, &call.asked, &server, None).await.map(drop)
    } else if write::unlock(app, &call.asked, &server, Some(caller)).await? {
        Ok(())
    } else {
        Err(ApiError::Forbidden(Rule::ServersUnlockOverride))
    }
}

async fn find(app: &AppState, call: &Call, id: &str, rule: Rule) -> Result<Server, ApiError> {
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, call.caller(), id).await?;
    app.policy().enforce(rule, call.caller(), &server.project_id)?;
    Ok(server)
}

/// As whom the caller locks (Nova: whoever is in the server's project is its owner, admins too).
fn holder(call: &Call, server: &Server) -> LockedBy {
    if call.caller().project_id == server.project_id { LockedBy::Owner } else { LockedBy::Admin }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::LOCK);
    }
}
