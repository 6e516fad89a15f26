//! `/os-hypervisors`: the hosts and what they have.

mod statistics;
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

pub(crate) use self::statistics::statistics;
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

pub(crate) static LIST: LazyLock<Schemas> = LazyLock::new(|| {
    let object = |properties: Value, open: bool| json!({"type": "object", "properties": properties, "additionalProperties": open});
    let paging = json!({"limit": single(&non_negative_integer()), "marker": common()});
    let mut all = paging.clone();
    all["hypervisor_hostname_pattern"] = single(&json!({"type": "string"}));
    all["with_servers"] = single(&boolean());
    Schemas::new([(v2(1), object(json!({}), true)), (v2(33), object(paging, true)), (v2(53), object(all, false))])
});

pub(crate) static SHOW: LazyLock<Schemas> = LazyLock::new(|| {
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
        keep_matching(&mut found, pattern)?;
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
    let found = [find(&app, &call, &wanted).await?];
    let hosted = hosted(&mut *app.store().connection().await?, &query, &found).await?;
    Ok(Json(json!({"hypervisor": View::of(&found[0], &call, hosted.as_ref(), true)})).into_response())
}

/// `GET /os-hypervisors/{pattern}/search`, until the pattern became a parameter of the list.
pub(crate) async fn search(State(app): State<AppState>, call: Call, Path([pattern]): Path<1>) -> Result<Response, ApiError> {
    matching(&app, &call, Rule::HypervisorsSearch, &pattern, false).await
}

/// `GET /os-hypervisors/{pattern}/servers`, likewise.
pub(crate) async fn servers(State(app): State<AppState>, call: Call, Path([pattern]): Path<1>) -> Result<Response, ApiError> {
    matching(&app, &call, Rule::HypervisorsServers, &pattern, true).await
}

async fn matching(app: &AppState, call: &Call, rule: Rule, pattern: &str, servers: bool) -> Result<Response, ApiError> {
    call.until(v2(52))?;
    app.policy().enforce_own(rule, call.caller())?;
    let mut conn = app.store().connection().await?;
    let mut found = hosts::hypervisors(&mut conn, app.service_down_time()).await?;
    keep_matching(&mut found, pattern)?;
    let hosted = if servers { Some(by_host(&mut conn, &found).await?) } else { None };
    let hypervisors = found.iter().map(|one| View::of(one, call, hosted.as_ref(), false)).collect();
    Ok(Json(Document { hypervisors, hypervisors_links: None }).into_response())
}

fn keep_matching(found: &mut Vec<Hypervisor>, pattern: &str) -> Result<(), ApiError> {
    found.retain(|hypervisor| hypervisor.hypervisor_hostname.contains(pattern));
    if found.is_empty() {
        return Err(ApiError::NotFound(format!("No hypervisor matching '{pattern}' could be found.")));
    }
    Ok(())
}

/// `GET /os-hypervisors/{id}/uptime`, until it became a field. libvirt does not tell it.
pub(crate) async fn uptime(State(app): State<AppState>, call: Call, Path([wanted]): Path<1>) -> Result<Response, ApiError> {
    call.until(v2(87))?;
    app.policy().enforce_own(Rule::HypervisorsUptime, call.caller())?;
    let hypervisor = find(&app, &call, &wanted).await?;
    let state = &hypervisor.state;
    if !state.up {
        return Err(ApiError::bad_request(format!("Compute service of {} is unavailable at this time.", state.host)));
    }
    Err(ApiError::NotSupported)
}

async fn find(app: &AppState, call: &Call, wanted: &str) -> Result<Hypervisor, ApiError> {
    if call.version >= v2(53) && lookup::uuid(wanted).is_none() {
        return Err(ApiError::bad_request(format!("Invalid uuid {wanted}")));
    }
    let mut conn = app.store().connection().await?;
    let all = hosts::hypervisors(&mut conn, app.service_down_time()).await?;
    let unknown = || ApiError::NotFound(format!("Hypervisor with ID '{wanted}' could not be found."));
    all.into_iter().find(|hypervisor| id(hypervisor, call).eq_ignore_ascii_case(wanted)).ok_or_else(unknown)
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
    by_host(conn, hypervisors).await.map(Some)
}

async fn by_host(
    conn: &mut drover_store::PgConnection,
    hypervisors: &[Hypervisor],
) -> Result<HashMap<String, Vec<Hosted>>, ApiError> {
    let hosts: Vec<String> = hypervisors.iter().map(|hypervisor| hypervisor.state.host.as_str().to_owned()).collect();
    let mut by_host: HashMap<String, Vec<Hosted>> = HashMap::new();
    for server in servers::hosted(conn, &hosts).await? {
        by_host.entry(server.host.clone()).or_default().push(server);
    }
    Ok(by_host)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::LIST);
        std::sync::LazyLock::force(&super::SHOW);
    }
}
