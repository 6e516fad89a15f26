//! `/servers/{id}/metadata`: the owner's key-value pairs (`nova/api/openstack/compute/server_metadata.py`).

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_store::commit;
use drover_store::servers::{self, Server};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{change, lookup};
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;
use crate::validation::Schemas;

/// Pairs that one server may have (Nova's default of `[quota] metadata_items`).
pub(crate) const ITEMS_MAX: usize = 128;

fn pairs(key: &str, more: &Value) -> Schemas {
    let mut pairs = json!({
        "type": "object",
        "patternProperties": {"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": "string", "maxLength": 255}},
        "additionalProperties": false,
    });
    for (keyword, value) in more.as_object().into_iter().flatten() {
        pairs[keyword] = value.clone();
    }
    let body = json!({"type": "object", "properties": {key: pairs}, "required": [key], "additionalProperties": false});
    Schemas::new([(v2(1), body)])
}

pub(crate) static ALL: LazyLock<Schemas> = LazyLock::new(|| pairs("metadata", &json!({})));
pub(crate) static ONE: LazyLock<Schemas> = LazyLock::new(|| pairs("meta", &json!({"minProperties": 1, "maxProperties": 1})));

/// `GET /servers/{id}/metadata`
pub(crate) async fn index(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<Response, ApiError> {
    let server = read(&app, &call, &id, Rule::ServerMetadataIndex).await?;
    Ok(Json(json!({"metadata": server.metadata})).into_response())
}

/// `GET /servers/{id}/metadata/{key}`
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([id, key]): Path<2>) -> Result<Response, ApiError> {
    let server = read(&app, &call, &id, Rule::ServerMetadataShow).await?;
    let value = server.metadata.get(&key).ok_or_else(no_such_item)?;
    Ok(Json(json!({"meta": {key: value}})).into_response())
}

/// `POST /servers/{id}/metadata`: adds pairs, or changes those that are there.
pub(crate) async fn create(State(app): State<AppState>, call: Call, Path([id]): Path<1>, body: Body) -> Result<Response, ApiError> {
    ALL.check_body(call.version, &body)?;
    let metadata = write(&app, &call, &id, Rule::ServerMetadataCreate, &body.value["metadata"], false).await?;
    Ok(Json(json!({"metadata": metadata})).into_response())
}

/// `PUT /servers/{id}/metadata`: these pairs and no others.
pub(crate) async fn update_all(
    State(app): State<AppState>,
    call: Call,
    Path([id]): Path<1>,
    body: Body,
) -> Result<Response, ApiError> {
    ALL.check_body(call.version, &body)?;
    let metadata = write(&app, &call, &id, Rule::ServerMetadataUpdateAll, &body.value["metadata"], true).await?;
    Ok(Json(json!({"metadata": metadata})).into_response())
}

/// `PUT /servers/{id}/metadata/{key}`
pub(crate) async fn update(
    State(app): State<AppState>,
    call: Call,
    Path([id, key]): Path<2>,
    body: Body,
) -> Result<Response, ApiError> {
    ONE.check_body(call.version, &body)?;
    let item = &body.value["meta"];
    if item.get(&key).is_none() {
        return Err(ApiError::bad_request("Request body and URI mismatch"));
    }
    write(&app, &call, &id, Rule::ServerMetadataUpdate, item, false).await?;
    Ok(Json(json!({"meta": item})).into_response())
}

/// `DELETE /servers/{id}/metadata/{key}`
pub(crate) async fn delete(State(app): State<AppState>, call: Call, Path([id, key]): Path<2>) -> Result<StatusCode, ApiError> {
    let (mut tx, mut server) = change::begin(&app, &call, &id, Rule::ServerMetadataDelete, "delete metadata").await?;
    server.metadata.as_object_mut().and_then(|pairs| pairs.remove(&key)).ok_or_else(no_such_item)?;
    servers::set_metadata(&mut tx, server.uuid, &server.metadata).await?;
    commit(tx).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn read(app: &AppState, call: &Call, id: &str, rule: Rule) -> Result<Server, ApiError> {
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, call.caller(), id).await?;
    app.policy().enforce(rule, call.caller(), &server.project_id)?;
    Ok(server)
}

async fn write(app: &AppState, call: &Call, id: &str, rule: Rule, given: &Value, replace: bool) -> Result<Value, ApiError> {
    let (mut tx, server) = change::begin(app, call, id, rule, "update metadata").await?;
    let mut pairs = match server.metadata {
        Value::Object(pairs) if !replace => pairs,
        _ => Map::new(),
    };
    pairs.extend(given.as_object().cloned().unwrap_or_default());
    if pairs.len() > ITEMS_MAX {
        return Err(ApiError::ForbiddenBecause("Maximum number of metadata items exceeds 128"));
    }
    let metadata = Value::Object(pairs);
    servers::set_metadata(&mut tx, server.uuid, &metadata).await?;
    commit(tx).await?;
    Ok(metadata)
}

fn no_such_item() -> ApiError {
    ApiError::NotFound("Metadata item was not found".to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::ALL);
        std::sync::LazyLock::force(&super::ONE);
    }
}
