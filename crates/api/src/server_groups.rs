//! `/os-server-groups`: which servers are to be together, or apart (`nova/api/openstack/compute/server_groups.py`).

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_common::server_group::GroupPolicy;
use drover_store::PgConnection;
use drover_store::server_groups::{self, ServerGroup};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::server_groups as write;
use crate::context::{Call, Caller};
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::microversion::v2;
use crate::policy::Rule;
use crate::servers::lookup;
use crate::state::AppState;
use crate::validation::Schemas;
use crate::validation::types::{common, multi, name, non_negative_integer};

pub(crate) static LIST: LazyLock<Schemas> = LazyLock::new(|| {
    let number = multi(&non_negative_integer());
    let properties = json!({"all_projects": common(), "limit": number, "offset": number});
    let object = |open: bool| json!({"type": "object", "properties": properties, "additionalProperties": open});
    Schemas::new([(v2(1), object(true)), (v2(75), object(false))])
});

pub(crate) static CREATE: LazyLock<Schemas> = LazyLock::new(|| {
    let body = |properties: Value, required: [&str; 2]| {
        let group = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        json!({"type": "object", "properties": {"server_group": group}, "required": ["server_group"], "additionalProperties": false})
    };
    let several = |policies: &[&str]| {
        let one = json!({"type": "string", "enum": policies});
        let policies = json!({"type": "array", "items": one, "minItems": 1, "maxItems": 1});
        body(json!({"name": name(), "policies": policies}), ["name", "policies"])
    };
    let rules = json!({
        "type": "object",
        "properties": {"max_server_per_host": {"type": ["integer", "string"], "pattern": "^[0-9]*$", "minLength": 1, "minimum": 1}},
        "additionalProperties": false,
    });
    let all = ["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"];
    let one = json!({"name": name(), "policy": {"type": "string", "enum": all}, "rules": rules});
    Schemas::new([(v2(1), several(&all[..2])), (v2(15), several(&all)), (v2(64), body(one, ["name", "policy"]))])
});

#[derive(Serialize)]
struct View<'a> {
    id: Uuid,
    name: &'a str,
    /// Until 2.63.
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<[GroupPolicy; 1]>,
    /// The same; always empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    /// Since 2.64.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<GroupPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<Value>,
    members: &'a [Uuid],
    /// Since 2.13.
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
}

impl<'a> View<'a> {
    fn of(group: &'a ServerGroup, call: &Call) -> Self {
        let (owner, one) = (call.version >= v2(13), call.version >= v2(64));
        let rules = || group.max_server_per_host.map_or_else(|| json!({}), |most| json!({"max_server_per_host": most}));
        Self {
            id: group.uuid,
            name: &group.name,
            policies: (!one).then_some([group.policy]),
            metadata: (!one).then(|| json!({})),
            policy: one.then_some(group.policy),
            rules: one.then(rules),
            members: &group.members,
            project_id: owner.then_some(&*group.project_id),
            user_id: owner.then_some(&*group.user_id),
        }
    }
}

/// `GET /os-server-groups`
pub(crate) async fn index(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    let query = LIST.check_query(call.version, &call.query)?;
    app.policy().enforce_own(Rule::ServerGroupsIndex, call.caller())?;
    // Whatever it says, as in Nova.
    let all = query.get("all_projects").is_some() && call.caller().is_admin();
    if all {
        app.policy().enforce_own(Rule::ServerGroupsIndexAllProjects, call.caller())?;
    }
    let project = (!all).then_some(&*call.caller().project_id);
    let limit = query.limit(app.config().max_limit)?;
    let offset = match query.get("offset") {
        None => 0,
        Some("") => return Err(ApiError::bad_request("offset param must be an integer")),
        Some(text) => text.parse().unwrap_or(i64::MAX),
    };
    let mut conn = app.store().connection().await?;
    let found = server_groups::list(&mut conn, project, None, limit, offset).await?;
    let views: Vec<View<'_>> = found.iter().map(|group| View::of(group, &call)).collect();
    Ok(Json(json!({"server_groups": views})).into_response())
}

/// `POST /os-server-groups`
pub(crate) async fn create(State(app): State<AppState>, call: Call, body: Body) -> Result<Response, ApiError> {
    CREATE.check_body(call.version, &body)?;
    app.policy().enforce_own(Rule::ServerGroupsCreate, call.caller())?;
    let wish = &body.value["server_group"];
    let policy = wish.get("policy").unwrap_or(&wish["policies"][0]).as_str().unwrap_or_default();
    let policy: GroupPolicy = policy.parse().map_err(|_| ApiError::malformed_body())?; // The schema let only known ones pass.
    let most = match &wish["rules"]["max_server_per_host"] {
        Value::Null => None,
        Value::String(text) => Some(text.parse().unwrap_or(i32::MAX)),
        number => Some(number.as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(i32::MAX)),
    };
    if most.is_some() && policy != GroupPolicy::AntiAffinity {
        return Err(ApiError::bad_request("Only anti-affinity policy supports rules."));
    }
    if most == Some(0) {
        return Err(ApiError::bad_request(
            "Invalid input for field/attribute max_server_per_host. Value: 0. 0 is less than the minimum of 1",
        ));
    }
    let group = write::create(&app, &call.asked, wish["name"].as_str().unwrap_or_default(), policy, most).await?;
    Ok(Json(json!({"server_group": View::of(&group, &call)})).into_response())
}

/// `GET /os-server-groups/{id}`
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<Response, ApiError> {
    let group = find(&mut *app.store().connection().await?, call.caller(), &id).await?;
    app.policy().enforce(Rule::ServerGroupsShow, call.caller(), &group.project_id)?;
    Ok(Json(json!({"server_group": View::of(&group, &call)})).into_response())
}

/// `DELETE /os-server-groups/{id}`
pub(crate) async fn delete(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<StatusCode, ApiError> {
    let group = find(&mut *app.store().connection().await?, call.caller(), &id).await?;
    app.policy().enforce(Rule::ServerGroupsDelete, call.caller(), &group.project_id)?;
    write::delete(&app, &call.asked, &group).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The group, if it is there and visible to the caller.
async fn find(conn: &mut PgConnection, caller: &Caller, id: &str) -> Result<ServerGroup, ApiError> {
    let unknown = || ApiError::NotFound(format!("Instance group {id} could not be found."));
    let uuid = lookup::uuid(id).ok_or_else(unknown)?;
    let group = server_groups::get(conn, uuid.0).await?;
    group.filter(|group| caller.is_admin() || group.project_id == caller.project_id).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::LIST);
        std::sync::LazyLock::force(&super::CREATE);
    }
}
