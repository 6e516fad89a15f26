//! `POST /drover/v1/servers/{id}/keep` with `{"host": "…"}`: an operator's choice where two hosts have a copy of the guest.

use std::sync::LazyLock;

use axum::extract::State;
use drover_common::ids::HostName;
use drover_store::migrations::{self, Migration};
use drover_store::servers::Server;
use http::StatusCode;
use serde_json::json;

use crate::app;
use crate::context::Asked;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::microversion::v2;
use crate::policy::Rule;
use crate::servers::lookup;
use crate::state::AppState;
use crate::validation::Schemas;
use crate::validation::types::fqdn;

pub(crate) static SCHEMA: LazyLock<Schemas> = LazyLock::new(|| {
    let body = json!({"type": "object", "properties": {"host": fqdn()}, "required": ["host"], "additionalProperties": false});
    Schemas::new([(v2(1), body)])
});

/// 202: the other host's copy will be removed, and this one is the guest.
pub(crate) async fn run(
    State(app): State<AppState>,
    asked: Asked,
    Path([id]): Path<1>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    app.policy().enforce_own(Rule::DroverServersKeep, &asked.caller)?;
    SCHEMA.check_body(v2(1), &body)?;
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, &asked.caller, &id).await?;
    let open = migrations::open_of_server(&mut conn, server.uuid).await?.ok_or_else(|| nothing_to_choose(&server))?;
    drop(conn);
    let host = one_of_its_two(&open, body.value["host"].as_str().unwrap_or_default())?;
    if !app::migrations::request_keep(&app, &asked, &open, &host).await? {
        return Err(nothing_to_choose(&server));
    }
    Ok(StatusCode::ACCEPTED)
}

fn one_of_its_two(migration: &Migration, name: &str) -> Result<HostName, ApiError> {
    let hosts = [Some(&migration.source), migration.destination.as_ref()];
    let found = hosts.into_iter().flatten().find(|host| host.as_str() == name);
    found.cloned().ok_or_else(|| {
        let named: Vec<&str> = hosts.into_iter().flatten().map(HostName::as_str).collect();
        ApiError::bad_request(format!("Host {name} takes no part in migration {}: choose {}.", migration.id, named.join(" or ")))
    })
}

fn nothing_to_choose(server: &Server) -> ApiError {
    ApiError::Conflict(format!(
        "Instance {} has no migration in an ownership conflict: there is nothing to choose (see /drover/v1/findings).",
        server.uuid
    ))
}
