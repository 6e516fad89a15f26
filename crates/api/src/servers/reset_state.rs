//! `os-resetState`: an operator says what state a server is in, and that nothing is being done to it. Locks do not matter. A
//! migration that is under way goes on, and its end says again what is.

use std::sync::LazyLock;

use drover_common::server::VmState;
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

const KEY: &str = "os-resetState";

pub(in crate::servers) static BODY: LazyLock<Schemas> = LazyLock::new(|| {
    let arguments = json!({
        "type": "object",
        "properties": {"state": {"type": "string", "enum": ["active", "error"]}},
        "required": ["state"],
        "additionalProperties": false,
    });
    let body = json!({"type": "object", "properties": {KEY: arguments}, "required": [KEY], "additionalProperties": false});
    Schemas::new([(v2(1), body)])
});

/// Does it.
pub(super) async fn run(app: &AppState, call: &Call, id: &str, body: &Body) -> Result<(), ApiError> {
    BODY.check_body(call.version, body)?;
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, call.caller(), id).await?;
    drop(conn);
    app.policy().enforce(Rule::ServersResetState, call.caller(), &server.project_id)?;
    let vm_state = if body.value[KEY]["state"] == "error" { VmState::Error } else { VmState::Active };
    write::reset_state(app, &call.asked, &server, vm_state).await
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::BODY);
    }
}
