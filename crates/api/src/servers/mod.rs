//! `/servers`: list, show and act on servers.

pub(crate) mod action;
mod change;
mod filter;
mod live_migrate;
mod lock;
pub(crate) mod lookup;
pub(crate) mod metadata;
pub(crate) mod power;
mod reset_state;
pub(crate) mod schema;
mod sort;
pub(crate) mod state;
pub(crate) mod tags;
pub(crate) mod view;

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_common::server::ServerStatus;
use drover_store::PgConnection;
use drover_store::actions::{self, ServerFault};
use drover_store::servers::{self, Server};
use drover_store::services::{self, Service};
use serde::Serialize;
use uuid::Uuid;

use self::view::{Beside, Visible};
use crate::availability_zones::Zones;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::Path;
use crate::links::Link;
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;

/// `GET /servers`
pub(crate) async fn index(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    app.policy().enforce_own(Rule::ServersIndex, call.caller())?;
    let page = page(&app, &call, Rule::ServersIndexAllTenants, "servers").await?;
    let servers = page.servers.iter().map(|server| view::short(server, &call.links)).collect();
    Ok(Json(Document { servers, servers_links: page.next }).into_response())
}

/// `GET /servers/detail`
pub(crate) async fn detail(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    app.policy().enforce_own(Rule::ServersDetail, call.caller())?;
    let page = page(&app, &call, Rule::ServersDetailAllTenants, "servers/detail").await?;
    let visible = Visible::to(&app, &call);
    let mut conn = app.store().connection().await?;
    let beside = beside(&app, &call, &mut conn, &page.servers, &visible).await?;
    drop(conn);
    let servers = page.servers.iter().map(|server| view::full(server, &call, &visible, &beside, false)).collect();
    Ok(Json(Document { servers, servers_links: page.next }).into_response())
}

/// `GET /servers/{id}`
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<Response, ApiError> {
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, call.caller(), &id).await?;
    app.policy().enforce(Rule::ServersShow, call.caller(), &server.project_id)?;
    let visible = Visible::to(&app, &call);
    let servers = [server];
    let beside = beside(&app, &call, &mut conn, &servers, &visible).await?;
    let [server] = &servers;
    Ok(Json(Alone { server: view::full(server, &call, &visible, &beside, true) }).into_response())
}

struct Page {
    servers: Vec<Server>,
    next: Option<Vec<Link>>,
}

#[derive(Serialize)]
struct Document<T> {
    servers: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    servers_links: Option<Vec<Link>>,
}

#[derive(Serialize)]
struct Alone<T> {
    server: T,
}

async fn page(app: &AppState, call: &Call, all_tenants: Rule, collection: &str) -> Result<Page, ApiError> {
    let query = schema::LIST.check_query(call.version, &call.query)?;
    let limit = query.limit(app.config().max_limit)?;
    let Some(mut filter) = filter::from_query(app, call, &query, all_tenants)? else {
        return Ok(Page { servers: Vec::new(), next: None });
    };
    filter.limit = limit;
    let mut conn = app.store().connection().await?;
    if let Some(marker) = query.get("marker") {
        let unknown = || ApiError::bad_request(format!("marker [{marker}] not found"));
        let uuid = lookup::uuid(marker).ok_or_else(unknown)?;
        servers::get(&mut conn, uuid).await?.ok_or_else(unknown)?;
        filter.marker = Some(uuid.0);
    }
    let servers = servers::list(&mut conn, &filter)
        .await
        .map_err(|error| if error.is_bad_regular_expression() { filter::bad_regular_expression(&query) } else { error.into() })?;
    let full = limit > 0 && i64::try_from(servers.len()) == Ok(limit);
    let next = servers.last().filter(|_| full).map(|last| call.links.next(collection, &call.query, &last.uuid.to_string()));
    Ok(Page { servers, next })
}

/// What the answer needs besides the servers: one query each, however many servers there are, and only if it shows.
async fn beside(
    app: &AppState,
    call: &Call,
    conn: &mut PgConnection,
    servers: &[Server],
    visible: &Visible,
) -> Result<Beside, ApiError> {
    let with_fault = |server: &&Server| ServerStatus::of(server.vm_state, server.task_state).has_fault();
    let faulty: Vec<Uuid> = servers.iter().filter(with_fault).map(|server| server.uuid.0).collect();
    let faults: HashMap<Uuid, ServerFault> = if faulty.is_empty() {
        HashMap::new()
    } else {
        actions::latest_faults(conn, &faulty).await?.into_iter().map(|fault| (fault.server_uuid, fault)).collect()
    };
    let services: HashMap<String, Service> = if visible.host_status && call.version >= v2(16) && !servers.is_empty() {
        let only = if let [one] = servers { Some(one.host.as_str()) } else { None };
        let services = services::list(conn, only, Some(services::COMPUTE), app.service_down_time()).await?;
        services.into_iter().map(|service| (service.host.as_str().to_owned(), service)).collect()
    } else {
        HashMap::new()
    };
    let zones = Zones::read(app, conn).await?;
    let server_groups = match servers {
        [one] if call.version >= v2(71) => servers::placement(conn, one.uuid).await?.server_group.into_iter().collect(),
        _ => Vec::new(),
    };
    Ok(Beside { faults, services, zones, server_groups })
}
