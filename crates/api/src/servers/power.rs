//! `pause`, `unpause`, `os-start`, `os-stop`, `reboot`, and DELETE. What each is stands in [`drover_common::power`].

use std::sync::LazyLock;

use axum::extract::State;
use drover_common::power::PowerAction;
use http::StatusCode;
use serde_json::json;

use super::lookup;
use super::state::Verb;
use crate::app::power::accept;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;
use crate::validation::Schemas;

pub(in crate::servers) static REBOOT: LazyLock<Schemas> = LazyLock::new(|| {
    let arguments = json!({
        "type": "object",
        "properties": {"type": {"type": "string", "enum": ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]}},
        "required": ["type"],
        "additionalProperties": false,
    });
    let body =
        json!({"type": "object", "properties": {"reboot": arguments}, "required": ["reboot"], "additionalProperties": false});
    Schemas::new([(v2(1), body)])
});

/// Which reboot the body asks for.
pub(super) fn reboot(call: &Call, body: &Body) -> Result<PowerAction, ApiError> {
    REBOOT.check_body(call.version, body)?;
    let is_soft = body.value["reboot"]["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("soft"));
    Ok(if is_soft { PowerAction::RebootSoft } else { PowerAction::RebootHard })
}

/// `DELETE /servers/{id}`
pub(crate) async fn delete(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<StatusCode, ApiError> {
    run(&app, &call, &id, PowerAction::Delete).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Checks in Nova's order: the server, the policy, the lock, `vm_state`, `task_state`; the last two with the claim.
pub(super) async fn run(app: &AppState, call: &Call, id: &str, action: PowerAction) -> Result<(), ApiError> {
    let mut tx = app.store().begin().await?;
    let server = lookup::live(&mut tx, call.caller(), id).await?;
    app.policy().enforce(rule(action), call.caller(), &server.project_id)?;
    if server.locked && !call.caller().is_admin() {
        return Err(ApiError::locked(server.uuid));
    }
    let verb = Verb { name: action.rule().name, mount: call.mount };
    accept(app, tx, &call.asked, server.uuid, action, verb).await
}

const fn rule(action: PowerAction) -> Rule {
    match action {
        PowerAction::Pause => Rule::ServersPause,
        PowerAction::Unpause => Rule::ServersUnpause,
        PowerAction::Start => Rule::ServersStart,
        PowerAction::Stop => Rule::ServersStop,
        PowerAction::RebootSoft | PowerAction::RebootHard => Rule::ServersReboot,
        PowerAction::Delete => Rule::ServersDelete,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::REBOOT);
    }
}
