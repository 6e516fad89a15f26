//! `GET /healthz`: whether this process can do its work. For load balancers and service managers; no token.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_common::ids::MigrationId;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::ToApi;
use drover_common::telemetry;
use http::StatusCode;
use serde_json::json;

use crate::state::AppState;

/// Longer than this is as good as not at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// 200 when database and broker answer, else 503 with what does not. Whoever asks need not be trusted, so errors go to the log.
pub(crate) async fn show(State(app): State<AppState>) -> Response {
    let (database, broker) = tokio::join!(database(&app), broker(&app));
    let well = database && broker;
    let word = |works| if works { "ok" } else { "unreachable" };
    let body = json!({"status": if well { "ok" } else { "unavailable" }, "database": word(database), "broker": word(broker)});
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

async fn database(app: &AppState) -> bool {
    match tokio::time::timeout(PATIENCE, app.store().ping()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(error = telemetry::chain(&error), "health: the database does not answer");
            false
        }
        Err(_) => {
            tracing::warn!("health: the database does not answer in time");
            false
        }
    }
}

/// A message to ourselves, about a migration that there never is: taken by the broker, routed to a queue, and nobody waits for it.
async fn broker(app: &AppState) -> bool {
    let nothing = Envelope::new(ToApi::MigrationMoved { migration: MigrationId(0) });
    let own = app.bus().own_address().clone();
    match tokio::time::timeout(PATIENCE, app.bus().cast_transient(&own, &nothing, PATIENCE)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(error = telemetry::chain(&error), "health: the broker cannot be reached");
            false
        }
        Err(_) => {
            tracing::warn!("health: the broker does not answer in time");
            false
        }
    }
}
