//! `/servers/{id}/os-instance-actions`: what was done to a server, step by step.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_store::PgConnection;
use drover_store::actions::{self, Action, ActionEvent, Listing};
use drover_store::servers::Server;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::context::Call;
use crate::error::ApiError;
use crate::extract::Path;
use crate::links::Link;
use crate::microversion::v2;
use crate::policy::Rule;
use crate::servers::lookup;
use crate::servers::view::host_id;
use crate::state::AppState;
use crate::time::ts;
use crate::validation::types::{date_time, non_negative_integer, single};
use crate::validation::{Query, Schemas};

pub(crate) static LIST: LazyLock<Schemas> = LazyLock::new(|| {
    let object = |properties: &Value, open: bool| json!({"type": "object", "properties": properties, "additionalProperties": open});
    let mut properties = json!({});
    let since_2_1 = object(&properties, true);
    properties["limit"] = single(&non_negative_integer());
    properties["marker"] = single(&json!({"type": "string"}));
    properties["changes-since"] = single(&date_time());
    let since_2_58 = object(&properties, false);
    properties["changes-before"] = single(&date_time());
    Schemas::new([(v2(1), since_2_1), (v2(58), since_2_58), (v2(66), object(&properties, false))])
});

#[derive(Serialize)]
struct View<'a> {
    action: &'a str,
    instance_uuid: Uuid,
    request_id: &'a str,
    user_id: Option<&'a str>,
    project_id: Option<&'a str>,
    start_time: String,
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<EventView<'a>>>,
}

impl<'a> View<'a> {
    fn of(action: &'a Action, call: &Call, events: Option<Vec<EventView<'a>>>) -> Self {
        Self {
            action: &action.action,
            instance_uuid: action.server_uuid,
            request_id: &action.request_id,
            user_id: action.user_id.as_deref(),
            project_id: action.project_id.as_deref(),
            start_time: ts(action.start_time),
            message: action.message.as_deref(),
            updated_at: (call.version >= v2(58)).then(|| ts(action.updated_at)),
            events,
        }
    }
}

#[derive(Serialize)]
struct EventView<'a> {
    event: &'a str,
    start_time: String,
    finish_time: Option<String>,
    result: Option<&'a str>,
    /// Nova has a Python traceback here. Ours is the reason, so that it can be read in the versions without `details`, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceback: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(rename = "hostId", skip_serializing_if = "Option::is_none")]
    host_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
}

/// What of an event the caller may see.
#[derive(Clone, Copy)]
struct Visible {
    host_and_traceback: bool,
    details: bool,
}

impl<'a> EventView<'a> {
    fn of(event: &'a ActionEvent, project: &str, call: &Call, visible: Visible) -> Self {
        let since_2_62 = call.version >= v2(62);
        let host = event.host.as_deref().unwrap_or_default();
        Self {
            event: &event.event,
            start_time: ts(event.start_time),
            finish_time: event.finish_time.map(ts),
            result: event.result.as_deref(),
            traceback: visible.host_and_traceback.then(|| json!(event.details)),
            host: (since_2_62 && visible.host_and_traceback).then_some(host),
            host_id: since_2_62.then(|| if host.is_empty() { String::new() } else { host_id(project, host) }),
            details: (call.version >= v2(84) && visible.details).then(|| json!(event.details)),
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "instanceActions")]
    actions: Vec<View<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Vec<Link>>,
}

/// `GET /servers/{id}/os-instance-actions`
pub(crate) async fn index(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<Response, ApiError> {
    let query = LIST.check_query(call.version, &call.query)?;
    let mut conn = app.store().connection().await?;
    let server = find(&mut conn, &call, &id).await?;
    app.policy().enforce(Rule::InstanceActionsList, call.caller(), &server.project_id)?;
    let limit = if call.version >= v2(58) { Some(query.limit(app.config().max_limit)?) } else { None };
    let changes = query.changes()?;
    let listing = Listing {
        changes_since: changes.since,
        changes_before: changes.before,
        marker: marker(&mut conn, &server, &query).await?,
        limit,
    };
    let found = actions::list(&mut conn, server.uuid, listing).await?;
    let full = limit.is_some_and(|limit| limit > 0 && i64::try_from(found.len()) == Ok(limit));
    let collection = format!("servers/{}/os-instance-actions", server.uuid);
    let links = found.last().filter(|_| full).map(|last| call.links.next(&collection, &call.query, &last.request_id));
    let actions = found.iter().map(|action| View::of(action, &call, None)).collect();
    Ok(Json(Document { actions, links }).into_response())
}

/// `GET /servers/{id}/os-instance-actions/{request_id}`
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([id, request_id]): Path<2>) -> Result<Response, ApiError> {
    let mut conn = app.store().connection().await?;
    let server = find(&mut conn, &call, &id).await?;
    app.policy().enforce(Rule::InstanceActionsShow, call.caller(), &server.project_id)?;
    let Some(action) = get(&mut conn, &server, &request_id).await? else {
        return Err(ApiError::NotFound(format!("Action {request_id} not found")));
    };
    let visible = Visible {
        host_and_traceback: app.policy().allows(Rule::InstanceActionsEvents, call.caller(), &server.project_id),
        details: app.policy().allows(Rule::InstanceActionsEventsDetails, call.caller(), &server.project_id),
    };
    let shown = call.version >= v2(51) || visible.host_and_traceback;
    let events = if shown { actions::events(&mut conn, action.id).await? } else { Vec::new() };
    let project = action.project_id.as_deref().unwrap_or_default();
    let events = events.iter().map(|event| EventView::of(event, project, &call, visible)).collect();
    Ok(Json(json!({"instanceAction": View::of(&action, &call, shown.then_some(events))})).into_response())
}

/// Deleted servers have a history, too, from 2.21 on.
async fn find(conn: &mut PgConnection, call: &Call, id: &str) -> Result<Server, ApiError> {
    if call.version >= v2(21) {
        lookup::even_deleted(conn, call.caller(), id).await
    } else {
        lookup::live(conn, call.caller(), id).await
    }
}

async fn get(conn: &mut PgConnection, server: &Server, request_id: &str) -> Result<Option<Action>, ApiError> {
    if request_id.contains('\0') {
        return Ok(None); // No stored text can hold one, nor can the question.
    }
    Ok(actions::get(conn, server.uuid, request_id).await?)
}

async fn marker(conn: &mut PgConnection, server: &Server, query: &Query) -> Result<Option<i64>, ApiError> {
    let Some(request_id) = query.get("marker") else { return Ok(None) };
    let action = get(conn, server, request_id).await?;
    let unknown = || ApiError::bad_request(format!("Marker {request_id} could not be found."));
    action.map(|action| Some(action.id)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::LIST);
    }
}
