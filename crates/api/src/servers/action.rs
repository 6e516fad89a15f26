//! `POST /servers/{id}/action`: the body's single key says what to do.
//!
//! *Adding an action:* a variant of [`Action`] with Nova's key, and its arm in [`run`].

use axum::extract::State;
use drover_common::names;
use drover_common::power::PowerAction;
use http::StatusCode;
use serde_json::{Value, json};

use super::{live_migrate, lock, power, reset_state};
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::state::AppState;

/// What can be done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Move it to another host while it runs.
    LiveMigrate,
    /// Say what state it is in.
    ResetState,
    /// Lock it.
    Lock,
    /// Unlock it.
    Unlock,
    /// Stop its CPUs.
    Pause,
    /// Let them go on.
    Unpause,
    /// Start it.
    Start,
    /// Shut it down.
    Stop,
    /// Start it anew.
    Reboot,
}
names!("action", Action {
    LiveMigrate = "os-migrateLive",
    ResetState = "os-resetState",
    Lock = "lock",
    Unlock = "unlock",
    Pause = "pause",
    Unpause = "unpause",
    Start = "os-start",
    Stop = "os-stop",
    Reboot = "reboot",
});

/// `POST /servers/{id}/action`
pub(crate) async fn run(State(app): State<AppState>, call: Call, Path([id]): Path<1>, body: Body) -> Result<StatusCode, ApiError> {
    let name = single_key(&body)?;
    match name.parse() {
        Ok(Action::LiveMigrate) => live_migrate::run(&app, &call, &id, &body).await?,
        Ok(Action::ResetState) => reset_state::run(&app, &call, &id, &body).await?,
        Ok(Action::Lock) => lock::lock(&app, &call, &id, &body).await?,
        Ok(Action::Unlock) => lock::unlock(&app, &call, &id).await?,
        Ok(Action::Pause) => power::run(&app, &call, &id, PowerAction::Pause).await?,
        Ok(Action::Unpause) => power::run(&app, &call, &id, PowerAction::Unpause).await?,
        Ok(Action::Start) => power::run(&app, &call, &id, PowerAction::Start).await?,
        Ok(Action::Stop) => power::run(&app, &call, &id, PowerAction::Stop).await?,
        Ok(Action::Reboot) => power::run(&app, &call, &id, power::reboot(&call, &body)?).await?,
        Err(_) => return Err(no_such_action(name)),
    }
    Ok(StatusCode::ACCEPTED)
}

/// What the body may be, in any microversion: an action without a schema takes anything under its key.
pub(crate) fn bodies() -> Vec<Value> {
    let bare = |action: Action| {
        let key = action.as_str();
        vec![json!({"type": "object", "properties": {key: {}}, "required": [key], "additionalProperties": false})]
    };
    let of = |&action: &Action| match action {
        Action::LiveMigrate => live_migrate::schema::SCHEMAS.documents(),
        Action::ResetState => reset_state::BODY.documents(),
        Action::Lock => lock::LOCK.documents(),
        Action::Reboot => power::REBOOT.documents(),
        Action::Unlock | Action::Pause | Action::Unpause | Action::Start | Action::Stop => bare(action),
    };
    Action::ALL.iter().flat_map(of).collect()
}

/// The name of the action. What is no object is refused as Nova's own way of looking at it ends (`action_peek` in
/// `nova/api/openstack/wsgi.py`): by its length first, then by having no keys.
pub(crate) fn single_key(body: &Body) -> Result<&str, ApiError> {
    let length = match &body.value {
        _ if body.is_empty() => 0,
        Value::Object(entries) => entries.len(),
        Value::Array(items) => items.len(),
        Value::String(text) => text.chars().count(),
        Value::Null | Value::Bool(_) | Value::Number(_) => return Err(ApiError::NotInThisVersion),
    };
    if length != 1 {
        return Err(ApiError::malformed_body());
    }
    body.value.as_object().and_then(|entries| entries.keys().next()).map(String::as_str).ok_or(ApiError::NotInThisVersion)
}

/// The refusal of a key that is no action.
pub(crate) fn no_such_action(name: &str) -> ApiError {
    ApiError::bad_request(format!("There is no such action: {name}"))
}
