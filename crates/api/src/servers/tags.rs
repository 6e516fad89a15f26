//! `/servers/{id}/tags`, since 2.26 (`nova/api/openstack/compute/server_tags.py`).

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_store::servers::{self, Server};
use drover_store::{Transaction, commit};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::{change, lookup};
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;
use crate::validation::Schemas;

/// Tags that one server may have.
const TAGS_MAX: usize = 50;

pub(crate) static ALL: LazyLock<Schemas> = LazyLock::new(|| {
    let tag = json!({"type": "string", "minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$"});
    let tags = json!({"type": "array", "items": tag, "maxItems": TAGS_MAX});
    Schemas::new([(
        v2(26),
        json!({"type": "object", "properties": {"tags": tags}, "required": ["tags"], "additionalProperties": false}),
    )])
});

/// `GET /servers/{id}/tags`
pub(crate) async fn index(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<Response, ApiError> {
    call.since(v2(26))?;
    let server = read(&app, &call, &id, Rule::ServerTagsIndex).await?;
    Ok(Json(json!({"tags": server.tags})).into_response())
}

/// `GET /servers/{id}/tags/{tag}`: whether it is there.
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([id, tag]): Path<2>) -> Result<StatusCode, ApiError> {
    call.since(v2(26))?;
    let server = read(&app, &call, &id, Rule::ServerTagsShow).await?;
    if server.tags.contains(&tag) { Ok(StatusCode::NO_CONTENT) } else { Err(no_such_tag(&server, &tag)) }
}

/// `PUT /servers/{id}/tags`: these and no others.
pub(crate) async fn update_all(
    State(app): State<AppState>,
    call: Call,
    Path([id]): Path<1>,
    body: Body,
) -> Result<Response, ApiError> {
    ALL.check_body(call.version, &body)?;
    let (tx, server) = change::begin(&app, &call, &id, Rule::ServerTagsUpdateAll, "update tags").await?;
    let mut tags: Vec<String> = Vec::new();
    for tag in body.value["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    write(tx, &server, &tags).await?;
    Ok(Json(json!({"tags": tags})).into_response())
}

/// `PUT /servers/{id}/tags/{tag}`: 201 when it is new, 204 when it was there.
pub(crate) async fn update(State(app): State<AppState>, call: Call, Path([id, tag]): Path<2>) -> Result<Response, ApiError> {
    call.since(v2(26))?;
    let alone = Body::of(json!({"tags": [tag]}));
    ALL.check_body(call.version, &alone)?;
    let (tx, mut server) = change::begin(&app, &call, &id, Rule::ServerTagsUpdate, "update tag").await?;
    if server.tags.contains(&tag) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if server.tags.len() >= TAGS_MAX {
        return Err(ApiError::bad_request(format!("The number of tags exceeded the per-server limit {TAGS_MAX}")));
    }
    server.tags.push(tag.clone());
    write(tx, &server, &server.tags).await?;
    let location = call.links.own(&format!("servers/{}/tags", server.uuid), &tag);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)]).into_response())
}

/// `DELETE /servers/{id}/tags/{tag}`
pub(crate) async fn delete(State(app): State<AppState>, call: Call, Path([id, tag]): Path<2>) -> Result<StatusCode, ApiError> {
    call.since(v2(26))?;
    let (tx, mut server) = change::begin(&app, &call, &id, Rule::ServerTagsDelete, "delete tag").await?;
    if !server.tags.contains(&tag) {
        return Err(no_such_tag(&server, &tag));
    }
    server.tags.retain(|known| *known != tag);
    write(tx, &server, &server.tags).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /servers/{id}/tags`
pub(crate) async fn delete_all(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<StatusCode, ApiError> {
    call.since(v2(26))?;
    let (tx, server) = change::begin(&app, &call, &id, Rule::ServerTagsDeleteAll, "delete tags").await?;
    write(tx, &server, &[]).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn read(app: &AppState, call: &Call, id: &str, rule: Rule) -> Result<Server, ApiError> {
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, call.caller(), id).await?;
    app.policy().enforce(rule, call.caller(), &server.project_id)?;
    Ok(server)
}

async fn write(mut tx: Transaction, server: &Server, tags: &[String]) -> Result<(), ApiError> {
    servers::set_tags(&mut tx, server.uuid, tags).await?;
    Ok(commit(tx).await?)
}

fn no_such_tag(server: &Server, tag: &str) -> ApiError {
    ApiError::NotFound(format!("Server {} has no tag '{tag}'", server.uuid))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::ALL);
    }
}
