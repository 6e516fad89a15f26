//! `/os-services`: who is there, and what operators wish of them.

mod delete;
pub(crate) mod update;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_store::services::{self, Service};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::LazyLock;

pub(crate) use delete::delete;
pub(crate) use update::update;

use crate::availability_zones::Zones;
use crate::context::Call;
use crate::error::ApiError;
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;
use crate::time::ts;
use crate::validation::Schemas;
use crate::validation::types::common;

pub(crate) static LIST: LazyLock<Schemas> = LazyLock::new(|| {
    let object =
        |open: bool| json!({"type": "object", "properties": {"host": common(), "binary": common()}, "additionalProperties": open});
    Schemas::new([(v2(1), object(true)), (v2(75), object(false))])
});

#[derive(Serialize)]
struct View<'a> {
    id: Value,
    binary: &'a str,
    host: &'a str,
    zone: &'a str,
    status: &'static str,
    state: &'static str,
    updated_at: Option<String>,
    disabled_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forced_down: Option<bool>,
}

impl<'a> View<'a> {
    fn of(service: &'a Service, zones: &'a Zones, call: &Call) -> Self {
        Self {
            id: if call.version >= v2(53) { json!(service.uuid) } else { json!(service.id) },
            binary: &service.binary,
            host: service.host.as_str(),
            zone: zones.of(service),
            status: if service.disabled { "disabled" } else { "enabled" },
            state: if service.up { "up" } else { "down" },
            updated_at: service.updated_at.map(ts),
            disabled_reason: service.disabled_reason.as_deref(),
            forced_down: (call.version >= v2(11)).then_some(service.forced_down),
        }
    }
}

/// `GET /os-services`
pub(crate) async fn index(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    let query = LIST.check_query(call.version, &call.query)?;
    app.policy().enforce_own(Rule::ServicesList, call.caller())?;
    let mut conn = app.store().connection().await?;
    let found = services::list(&mut conn, query.get("host"), query.get("binary"), app.service_down_time()).await?;
    let zones = Zones::read(&app, &mut conn).await?;
    let views: Vec<View<'_>> = found.iter().map(|service| View::of(service, &zones, &call)).collect();
    Ok(Json(json!({"services": views})).into_response())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::LIST);
    }
}
