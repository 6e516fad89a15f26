//! `GET /drover/v1/queue`: the migrations that wait for a slot, in the order in which they get one.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use drover_store::migrations;
use serde_json::{Value, json};

use crate::context::Asked;
use crate::error::ApiError;
use crate::policy::Rule;
use crate::state::AppState;
use crate::time::ts;

/// The first in line first, at most `max_limit` of them.
pub(crate) async fn index(State(app): State<AppState>, asked: Asked) -> Result<Json<Value>, ApiError> {
    app.policy().enforce_own(Rule::DroverQueueIndex, &asked.caller)?;
    let mut conn = app.store().connection().await?;
    let line = migrations::in_line(&mut conn, app.config().max_limit.into()).await?;
    let mut of_source: HashMap<&str, usize> = HashMap::new();
    let mut views: Vec<Value> = Vec::new();
    for migration in &line {
        let at_source = of_source.entry(migration.source.as_str()).or_default();
        *at_source += 1;
        views.push(json!({
            "position": views.len() + 1,
            "position_at_source": *at_source,
            "priority": migration.priority,
            "migration_id": migration.id,
            "server_uuid": migration.server,
            "status": migration.status.in_api(),
            "source_compute": migration.source,
            "requested_host": migration.requested_host,
            // Hosts that only lack a slot; null: any may do.
            "hosts": migration.slot_hosts,
            "waiting_for": migration.waiting_for,
            "queued_at": migration.queued_at.map(ts),
        }));
    }
    Ok(Json(json!({"queue": views})))
}
