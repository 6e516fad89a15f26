//! `/drover/v1/pause`: holds back new migrations, all over the fleet. They are accepted, checked and queued; those under way end.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use drover_store::pause::{self, Pause};
use drover_store::{audit, commit};
use http::StatusCode;
use serde_json::{Value, json};

use crate::app::migrations::entry;
use crate::context::Asked;
use crate::error::ApiError;
use crate::extract::Body;
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;
use crate::time::ts;
use crate::validation::Schemas;

const FLEET: &str = "fleet";

pub(crate) static BODY: LazyLock<Schemas> = LazyLock::new(|| {
    let pause = json!({
        "type": "object",
        "properties": {"reason": {"type": "string", "maxLength": 255}},
        "required": ["reason"],
        "additionalProperties": false,
    });
    let body = json!({"type": "object", "properties": {"pause": pause}, "required": ["pause"], "additionalProperties": false});
    Schemas::new([(v2(1), body)])
});

/// `GET`: whether they are held back, and why.
pub(crate) async fn show(State(app): State<AppState>, asked: Asked) -> Result<Json<Value>, ApiError> {
    app.policy().enforce_own(Rule::DroverPause, &asked.caller)?;
    let mut conn = app.store().connection().await?;
    Ok(view(pause::get(&mut conn).await?.as_ref()))
}

/// `PUT`: from now on no migration gets a slot.
pub(crate) async fn begin(State(app): State<AppState>, asked: Asked, body: Body) -> Result<Json<Value>, ApiError> {
    app.policy().enforce_own(Rule::DroverPause, &asked.caller)?;
    BODY.check_body(v2(1), &body)?;
    let reason = body.value["pause"]["reason"].as_str().unwrap_or_default();
    let mut tx = app.store().begin().await?;
    let begun = pause::begin(&mut tx, &asked.caller.user_id, reason).await?;
    audit::write(&mut tx, entry(&asked, "pause", FLEET, Some(reason))).await?;
    commit(tx).await?;
    tracing::info!(why = reason, "new migrations are held back");
    Ok(view(Some(&begun)))
}

/// `DELETE`: those that wait go on with the conductors' next sweep.
pub(crate) async fn end(State(app): State<AppState>, asked: Asked) -> Result<StatusCode, ApiError> {
    app.policy().enforce_own(Rule::DroverPause, &asked.caller)?;
    let mut tx = app.store().begin().await?;
    if !pause::end(&mut tx).await? {
        return Err(ApiError::NotFound("New migrations are not held back: there is no pause to end.".to_owned()));
    }
    audit::write(&mut tx, entry(&asked, "resume", FLEET, None)).await?;
    commit(tx).await?;
    tracing::info!("new migrations go on");
    Ok(StatusCode::NO_CONTENT)
}

fn view(pause: Option<&Pause>) -> Json<Value> {
    let shown = pause.map(|pause| json!({"reason": pause.reason, "paused_by": pause.paused_by, "since": ts(pause.since)}));
    Json(json!({"pause": shown}))
}
