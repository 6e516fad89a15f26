//! Where metrics are asked for: `GET /metrics`, and `GET /healthz` beside it. No token and no TLS, so it is off unless an address is
//! given. An answer is made of what is in memory: asking costs neither a statement nor a call to libvirt.

use std::net::SocketAddr;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::{BUILD_INFO, dependencies, expose};
use crate::config::MetricsSection;
use crate::lifecycle::Life;

/// Somebody else listens there, or the address is not ours.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ([metrics] listen)")]
pub struct EndpointError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers from now on until the process is told to stop, if an address is configured.
pub async fn serve(config: &MetricsSection, service: &'static str, life: &Life) -> Result<(), EndpointError> {
    BUILD_INFO.set([env!("CARGO_PKG_VERSION")], 1.0);
    let Some(address) = config.listen else { return Ok(()) };
    let listener = TcpListener::bind(address).await.map_err(|source| EndpointError { address, source })?;
    info!(%address, "metrics can be asked for");
    let stop = life.stop.clone().cancelled_owned();
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes(service)).with_graceful_shutdown(stop).await {
            warn!(error = %error, "the listener for metrics failed");
        }
    });
    Ok(())
}

/// What is answered.
pub fn routes(service: &'static str) -> Router {
    let metrics = async move || ([(header::CONTENT_TYPE, OPENMETRICS)], expose(service));
    Router::new().route("/metrics", get(metrics)).route("/healthz", get(async move || health(service)))
}

/// 200 when all that the service needs was there when it was last looked at, else 503.
fn health(service: &str) -> impl IntoResponse {
    let needed = dependencies(service);
    let well = needed.iter().all(|(_, up)| *up);
    let word = |up: bool| if up { "ok" } else { "unreachable" };
    let mut body: serde_json::Map<_, _> =
        needed.into_iter().map(|(name, up)| (name.to_owned(), serde_json::Value::from(word(up)))).collect();
    body.insert("status".to_owned(), (if well { "ok" } else { "unavailable" }).into());
    (if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, axum::Json(body))
}
