//! `/drover/v1/servers/{id}/placement`: the zone that a server must stay in, and the server group that it is in. Nova takes both when
//! it creates a server; servers here come from the hosts, so they are told afterwards.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use drover_store::servers::{self, Placement};
use drover_store::{audit, commit};
use serde_json::{Value, json};

use crate::app::migrations::entry;
use crate::context::Asked;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::microversion::{MAX, v2};
use crate::policy::Rule;
use crate::servers::lookup;
use crate::state::AppState;
use crate::validation::Schemas;
use crate::validation::types::name;

pub(crate) static BODY: LazyLock<Schemas> = LazyLock::new(|| {
    let mut zone = name();
    zone["type"] = json!(["string", "null"]);
    let placement = json!({
        "type": "object",
        "properties": {"availability_zone": zone, "server_group": {"type": ["string", "null"]}},
        "required": ["availability_zone", "server_group"],
        "additionalProperties": false,
    });
    let body =
        json!({"type": "object", "properties": {"placement": placement}, "required": ["placement"], "additionalProperties": false});
    Schemas::new([(v2(1), body)])
});

/// `GET`: what is on record.
pub(crate) async fn show(State(app): State<AppState>, asked: Asked, Path([id]): Path<1>) -> Result<Json<Value>, ApiError> {
    app.policy().enforce_own(Rule::DroverPlacement, &asked.caller)?;
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, &asked.caller, &id).await?;
    Ok(view(&servers::placement(&mut conn, server.uuid).await?))
}

/// `PUT`: replaces it. Nothing is moved by it: it counts from the next migration on.
pub(crate) async fn update(
    State(app): State<AppState>,
    asked: Asked,
    Path([id]): Path<1>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    BODY.check_body(MAX, &body)?;
    app.policy().enforce_own(Rule::DroverPlacement, &asked.caller)?;
    let wish = &body.value["placement"];
    let no_group = |group: &str| ApiError::bad_request(format!("Instance group {group} could not be found."));
    let server_group = match wish["server_group"].as_str() {
        None => None,
        Some(group) => Some(lookup::uuid(group).ok_or_else(|| no_group(group))?.0),
    };
    let placement = Placement { availability_zone: wish["availability_zone"].as_str().map(str::to_owned), server_group };
    let mut tx = app.store().begin().await?;
    let server = lookup::live(&mut tx, &asked.caller, &id).await?;
    if !servers::place(&mut tx, server.uuid, &placement).await? {
        return Err(no_group(wish["server_group"].as_str().unwrap_or_default()));
    }
    let target = format!("server {}", server.uuid);
    audit::write(&mut tx, entry(&asked, "placement", &target, Some(&wish.to_string()))).await?;
    commit(tx).await?;
    tracing::info!(server.id = %server.uuid, placement = %wish, "placement changed");
    Ok(view(&placement))
}

fn view(placement: &Placement) -> Json<Value> {
    let Placement { availability_zone, server_group } = placement;
    Json(json!({"placement": {"availability_zone": availability_zone, "server_group": server_group}}))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::BODY);
    }
}
