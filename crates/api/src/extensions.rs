//! `/extensions`: a list from before there were microversions. It never changes; old clients look whether a name is on it.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::context::Call;
use crate::error::ApiError;
use crate::extract::Path;
use crate::policy::Rule;
use crate::state::AppState;

/// What is served here of what Nova once called extensions: alias, name, what it is.
const ALL: [(&str, &str, &str); 13] = [
    ("os-admin-actions", "AdminActions", "Actions on servers for operators."),
    ("os-aggregates", "Aggregates", "Host aggregates."),
    ("os-availability-zone", "AvailabilityZone", "Availability zones and their hosts."),
    ("os-extended-availability-zone", "ExtendedAvailabilityZone", "The availability zone of a server."),
    ("os-extended-server-attributes", "ExtendedServerAttributes", "Where a server is, for operators."),
    ("os-extended-status", "ExtendedStatus", "The states of a server in detail."),
    ("os-hypervisors", "Hypervisors", "The hosts and what they have."),
    ("os-instance-actions", "InstanceActions", "What was done to a server."),
    ("os-lock-server", "LockServer", "Locks of servers."),
    ("os-migrate-server", "MigrateServer", "Migrations of servers."),
    ("os-migrations", "Migrations", "All migrations."),
    ("os-server-groups", "ServerGroups", "Servers that are to be together, or apart."),
    ("os-services", "Services", "The services and what operators wish of them."),
];

fn view((alias, name, description): &(&str, &str, &str)) -> Value {
    json!({
        "alias": alias,
        "name": name,
        "description": description,
        "namespace": "http://docs.openstack.org/compute/ext/fake_xml",
        "updated": "2014-12-03T00:00:00Z",
        "links": [],
    })
}

/// `GET /extensions`
pub(crate) async fn index(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    app.policy().enforce_own(Rule::Extensions, call.caller())?;
    let views: Vec<Value> = ALL.iter().map(view).collect();
    Ok(Json(json!({"extensions": views})).into_response())
}

/// `GET /extensions/{alias}`
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([wanted]): Path<1>) -> Result<Response, ApiError> {
    app.policy().enforce_own(Rule::Extensions, call.caller())?;
    let found = ALL.iter().find(|(alias, ..)| *alias == wanted).ok_or(ApiError::NotInThisVersion)?;
    Ok(Json(json!({"extension": view(found)})).into_response())
}
