//! `GET /drover/v1/findings`: what an operator should look at.

use axum::Json;
use axum::extract::State;
use drover_store::findings;
use serde_json::{Value, json};

use crate::context::Asked;
use crate::error::ApiError;
use crate::policy::Rule;
use crate::state::AppState;
use crate::time::ts;

/// All open findings, oldest first.
pub(crate) async fn index(State(app): State<AppState>, asked: Asked) -> Result<Json<Value>, ApiError> {
    app.policy().enforce_own(Rule::DroverFindingsIndex, &asked.caller)?;
    let mut conn = app.store().connection().await?;
    let found = findings::open(&mut conn).await?;
    let views: Vec<Value> = found
        .iter()
        .map(|finding| {
            json!({
                "id": finding.id,
                "kind": finding.kind,
                "server_uuid": finding.server_uuid,
                "host": finding.host,
                "details": finding.details,
                "created_at": ts(finding.created_at),
            })
        })
        .collect();
    Ok(Json(json!({"findings": views})))
}
