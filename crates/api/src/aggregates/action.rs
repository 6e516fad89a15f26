//! `POST /os-aggregates/{id}/action`

use axum::extract::State;
use axum::response::Response;
use drover_common::names;
use serde_json::Map;

use super::{integer, schema, shown};
use crate::app::aggregates as write;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::policy::Rule;
use crate::servers::action::{no_such_action, single_key};
use crate::state::AppState;

/// What can be done to an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Put a host in.
    AddHost,
    /// Take a host out.
    RemoveHost,
    /// Change key-value pairs.
    SetMetadata,
}
names!("action", Action { AddHost = "add_host", RemoveHost = "remove_host", SetMetadata = "set_metadata" });

/// `POST /os-aggregates/{id}/action`
pub(crate) async fn run(State(app): State<AppState>, call: Call, Path([id]): Path<1>, body: Body) -> Result<Response, ApiError> {
    let name = single_key(&body)?;
    let action: Action = name.parse().map_err(|_| no_such_action(name))?;
    let (schemas, rule) = match action {
        Action::AddHost => (&schema::ADD_HOST, Rule::AggregatesAddHost),
        Action::RemoveHost => (&schema::REMOVE_HOST, Rule::AggregatesRemoveHost),
        Action::SetMetadata => (&schema::SET_METADATA, Rule::AggregatesSetMetadata),
    };
    schemas.check_body(call.version, &body)?;
    app.policy().enforce_own(rule, call.caller())?;
    let id = integer(&id)?;
    let arguments = &body.value[action.as_str()];
    let host = arguments["host"].as_str().unwrap_or_default();
    let aggregate = match action {
        Action::AddHost => write::add_host(&app, &call.asked, id, host).await?,
        Action::RemoveHost => write::remove_host(&app, &call.asked, id, host).await?,
        Action::SetMetadata => {
            let nothing = Map::new();
            write::set_metadata(&app, &call.asked, id, arguments["metadata"].as_object().unwrap_or(&nothing)).await?
        }
    };
    Ok(shown(&aggregate, &call))
}
