//! `/os-availability-zone`: where hosts are, as aggregates say (`nova/api/openstack/compute/availability_zone.py`).

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_store::services::{self, Service};
use drover_store::{PgConnection, aggregates};
use serde_json::{Map, Value, json};

use crate::context::Call;
use crate::error::ApiError;
use crate::policy::Rule;
use crate::state::AppState;
use crate::time::ts;

/// Where services are that run no guests.
pub(crate) const INTERNAL_ZONE: &str = "internal";

/// Which zone each host is in.
pub(crate) struct Zones {
    by_host: std::collections::HashMap<String, String>,
    default: String,
}

impl Zones {
    /// As of now.
    pub(crate) async fn read(app: &AppState, conn: &mut PgConnection) -> Result<Self, ApiError> {
        let by_host = aggregates::zones(conn).await?;
        Ok(Self { by_host, default: app.default_availability_zone().to_owned() })
    }

    /// The zone of a compute host.
    pub(crate) fn of_host(&self, host: &str) -> &str {
        self.by_host.get(host).unwrap_or(&self.default)
    }

    /// The zone of a service.
    pub(crate) fn of(&self, service: &Service) -> &str {
        if service.binary == services::COMPUTE { self.of_host(service.host.as_str()) } else { INTERNAL_ZONE }
    }
}

/// `GET /os-availability-zone`
pub(crate) async fn index(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    app.policy().enforce_own(Rule::AvailabilityZonesList, call.caller())?;
    list(&app, false).await
}

/// `GET /os-availability-zone/detail`
pub(crate) async fn detail(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    app.policy().enforce_own(Rule::AvailabilityZonesDetail, call.caller())?;
    list(&app, true).await
}

/// Zones by name, those with an enabled service first. Disabled services are left out of the details.
async fn list(app: &AppState, detailed: bool) -> Result<Response, ApiError> {
    let mut conn = app.store().connection().await?;
    let zones = Zones::read(app, &mut conn).await?;
    let all = services::list(&mut conn, None, None, app.service_down_time()).await?;
    drop(conn);
    let mut enabled: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
    let mut disabled: BTreeSet<&str> = BTreeSet::new();
    for service in &all {
        let zone = zones.of(service);
        if zone == INTERNAL_ZONE && !detailed {
            continue;
        }
        if service.disabled {
            disabled.insert(zone);
        } else {
            enabled.entry(zone).or_default().push(service);
        }
    }
    let mut shown: Vec<Value> = Vec::new();
    for (zone, services) in &enabled {
        let hosts = if detailed { by_host(services) } else { Value::Null };
        shown.push(json!({"zoneName": zone, "zoneState": {"available": true}, "hosts": hosts}));
    }
    for zone in disabled.iter().filter(|zone| !enabled.contains_key(*zone)) {
        shown.push(json!({"zoneName": zone, "zoneState": {"available": false}, "hosts": null}));
    }
    Ok(Json(json!({"availabilityZoneInfo": shown})).into_response())
}

fn by_host(services: &[&Service]) -> Value {
    let mut hosts: Map<String, Value> = Map::new();
    for service in services {
        let view = json!({"available": service.up, "active": true, "updated_at": service.updated_at.map(ts)});
        hosts.entry(service.host.as_str()).or_insert_with(|| json!({}))[&service.binary] = view;
    }
    Value::Object(hosts)
}
