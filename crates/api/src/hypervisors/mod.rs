//! `/os-hypervisors`: the hosts and what they have.

mod view;

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_store::hosts::{self, Hypervisor};
use drover_store::servers::{self, Hosted};
use serde::Serialize;
use serde_json::{Value, json};

use self::view::View;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::Path;
use crate::links::Link;
use crate::microversion::v2;
use crate::policy::Rule;
use crate::servers::lookup;
use crate::state::AppState;
use crate::validation::types::{as_bool, boolean, common, non_negative_integer, single};
use crate::validation::{Query, Schemas};

static LIST: LazyLock<Schemas> = LazyLock::new(|| {
    let object = |properties: Value, open: bool| json!({"type": "object", "properties": properties, "additionalProperties": open});
    let paging = json!({"limit": single(&non_negative_integer()), "marker": common()});
    let mut all = paging.clone();
    all["hypervisor_hostname_pattern"] = single(&json!({"type": "string"}));
    all["with_servers"] = single(&boolean());
    Schemas::new([(v2(1), object(json!({}), true)), (v2(33), object(paging, true)), (v2(53), object(all, false))])
});

static SHOW: LazyLock<Schemas> = LazyLock::new(|| {
    let object = |properties: Value, open: bool| json!({"type": "object", "properties": properties, "additionalProperties": open});
    Schemas::new([(v2(1), object(json!({}), true)), (v2(53), object(json!({"with_servers": single(&boolean())}), false))])
});

#[derive(Serialize)]
struct Document<'a> {
    hypervisors: Vec<View<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hypervisors_links: Option<Vec<Link>>,
}

/// `GET /os-hypervisors`
pub(crate) async fn index(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    list(&app, &call, Rule::HypervisorsList, "os-hypervisors", false).await
}

/// `GET /os-hypervisors/detail`
pub(crate) async fn detail(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    list(&app, &call, Rule::HypervisorsListDetail, "os-hypervisors/detail", true).await
}

async fn list(app: &AppState, call: &Call, rule: Rule, collection: &str, detailed: bool) -> Result<Response, ApiError> {
    let query = LIST.check_query(call.version, &call.query)?;
    app.policy().enforce_own(rule, call.caller())?;
    let pattern = query.get("hypervisor_hostname_pattern");
    let paged = ["limit", "marker"].iter().any(|name| query.get(name).is_some());
    if pattern.is_some() && paged {
        return Err(ApiError::bad_request(
            "The server could not comply with the request since it is either malformed or otherwise incorrect.",
        ));
    }
    let limit = query.limit(app.config().max_limit)?;
    let mut conn = app.store().connection().await?;
    let mut found = hosts::hypervisors(&mut conn, app.service_down_time()).await?;
    if let Some(pattern) = pattern {
        found.retain(|hypervisor| hypervisor.hypervisor_hostname.contains(pattern));
        if found.is_empty() {
            return Err(ApiError::NotFound(format!("No hypervisor matching '{pattern}' could be found.")));
        }
    }
    let found = page(found, call, &query, limit)?;
    let full = call.version >= v2(33) && limit > 0 && i64::try_from(found.len()) == Ok(limit);
    let next = found.last().filter(|_| full).map(|last| call.links.next(collection, &call.query, &id(last, call)));
    let hosted = hosted(&mut conn, &query, &found).await?;
    let hypervisors = found.iter().map(|one| View::of(one, call, hosted.as_ref(), detailed)).collect();
    Ok(Json(Document { hypervisors, hypervisors_links: next }).into_response())
}

/// `GET /os-hypervisors/{id}`
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([wanted]): Path<1>) -> Result<Response, ApiError> {
    let query = SHOW.check_query(call.version, &call.query)?;
    app.policy().enforce_own(Rule::HypervisorsShow, call.caller())?;
    if call.version >= v2(53) && lookup::uuid(&wanted).is_none() {
        return Err(ApiError::bad_request(format!("Invalid uuid {wanted}")));
    }
    let mut conn = app.store().connection().await?;
    let mut found = hosts::hypervisors(&mut conn, app.service_down_time()).await?;
    found.retain(|hypervisor| id(hypervisor, &call).eq_ignore_ascii_case(&wanted));
    let hosted = hosted(&mut conn, &query, &found).await?;
    let Some(hypervisor) = found.first() else {
        return Err(ApiError::NotFound(format!("Hypervisor with ID '{wanted}' could not be found.")));
    };
    Ok(Json(json!({"hypervisor": View::of(hypervisor, &call, hosted.as_ref(), true)})).into_response())
}

fn id(hypervisor: &Hypervisor, call: &Call) -> String {
    if call.version >= v2(53) { hypervisor.uuid.to_string() } else { hypervisor.id.to_string() }
}

/// The part that was asked for. Before 2.33 there were no pages.
fn page(mut all: Vec<Hypervisor>, call: &Call, query: &Query, limit: i64) -> Result<Vec<Hypervisor>, ApiError> {
    if call.version < v2(33) {
        return Ok(all);
    }
    if let Some(marker) = query.get("marker") {
        let place = all.iter().position(|hypervisor| id(hypervisor, call) == marker);
        let place = place.ok_or_else(|| ApiError::bad_request(format!("marker [{marker}] not found")))?;
        all.drain(..=place);
    }
    all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(all)
}

/// The servers of these hosts by host, if they were asked for.
async fn hosted(
    conn: &mut drover_store::PgConnection,
    query: &Query,
    hypervisors: &[Hypervisor],
) -> Result<Option<HashMap<String, Vec<Hosted>>>, ApiError> {
    if !query.get("with_servers").is_some_and(|text| as_bool(&Value::from(text))) {
        return Ok(None);
    }
    let hosts: Vec<String> = hypervisors.iter().map(|hypervisor| hypervisor.state.host.as_str().to_owned()).collect();
    let mut by_host: HashMap<String, Vec<Hosted>> = HashMap::new();
    for server in servers::hosted(conn, &hosts).await? {
        by_host.entry(server.host.clone()).or_default().push(server);
    }
    Ok(Some(by_host))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::LIST);
        std::sync::LazyLock::force(&super::SHOW);
    }
}
