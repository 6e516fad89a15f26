//! Every route there is, in one table. The same routes serve `/v2.1` and `/v2`, with and without a project in front
//! ([`crate::pipeline::mount`]).

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{any, get, post, put};

use crate::microversion;
use crate::pipeline::{self, webob};
use crate::servers::{metadata, tags};
use crate::state::AppState;
use crate::{
    aggregates, availability_zones, extension, extensions, flavors, health, hypervisors, instance_actions, limits, migrations,
    server_groups, server_migrations, servers, services, versions,
};

/// The whole API as a service.
pub fn router(app: &AppState) -> Router {
    let compute = pipeline::around(compute_routes(app), app);
    let extension = pipeline::around(extension_routes(app), app);
    let mut root = Router::new().route("/", any(versions::list)).route("/healthz", get(health::show));
    for mount in ["/v2.1", "/v2.1/", "/v2.1/{*path}", "/v2", "/v2/", "/v2/{*path}"] {
        root = root.route_service(mount, compute.clone());
    }
    for mount in ["/drover/v1", "/drover/v1/", "/drover/v1/{*path}"] {
        root = root.route_service(mount, extension.clone());
    }
    root.fallback(versions::choices).with_state(app.clone())
}

/// Nova's resources.
fn compute_routes(app: &AppState) -> Router {
    let routes = Router::new()
        .route("/", get(versions::show))
        .route("/servers", get(servers::index))
        .route("/servers/detail", get(servers::detail))
        .route("/servers/{id}", get(servers::show))
        .route("/servers/{id}/action", post(servers::action::run))
        .route("/servers/{id}/migrations", get(server_migrations::index))
        .route("/servers/{id}/migrations/{migration}", get(server_migrations::show).delete(server_migrations::abort))
        .route("/servers/{id}/migrations/{migration}/action", post(server_migrations::action))
        .route("/servers/{id}/os-instance-actions", get(instance_actions::index))
        .route("/servers/{id}/os-instance-actions/{request}", get(instance_actions::show))
        .route("/servers/{id}/metadata", get(metadata::index).post(metadata::create).put(metadata::update_all))
        .route("/servers/{id}/metadata/{key}", get(metadata::show).put(metadata::update).delete(metadata::delete))
        .route("/servers/{id}/tags", get(tags::index).put(tags::update_all).delete(tags::delete_all))
        .route("/servers/{id}/tags/{tag}", get(tags::show).put(tags::update).delete(tags::delete))
        .route("/limits", get(limits::show))
        .route("/extensions", get(extensions::index))
        .route("/extensions/{alias}", get(extensions::show))
        .route("/os-migrations", get(migrations::index))
        .route("/os-services", get(services::index))
        .route("/os-services/{what}", put(services::update).delete(services::delete))
        .route("/os-hypervisors", get(hypervisors::index))
        .route("/os-hypervisors/detail", get(hypervisors::detail))
        .route("/os-hypervisors/statistics", get(hypervisors::statistics))
        .route("/os-hypervisors/{id}", get(hypervisors::show))
        .route("/os-hypervisors/{id}/search", get(hypervisors::search))
        .route("/os-hypervisors/{id}/servers", get(hypervisors::servers))
        .route("/os-hypervisors/{id}/uptime", get(hypervisors::uptime))
        .route("/os-aggregates", get(aggregates::index).post(aggregates::create))
        .route("/os-aggregates/{id}", get(aggregates::show).put(aggregates::update).delete(aggregates::delete))
        .route("/os-aggregates/{id}/action", post(aggregates::action))
        .route("/os-availability-zone", get(availability_zones::index))
        .route("/os-availability-zone/detail", get(availability_zones::detail))
        .route("/os-server-groups", get(server_groups::index).post(server_groups::create))
        .route("/os-server-groups/{id}", get(server_groups::show).delete(server_groups::delete))
        .route("/flavors", get(flavors::index))
        .route("/flavors/detail", get(flavors::detail))
        .route("/flavors/{id}", get(flavors::show));
    // Only what matches a route has a microversion; a method that a path does not have is no route.
    routes
        .route_layer(from_fn(microversion::negotiate))
        .method_not_allowed_fallback(webob::not_found)
        .fallback(webob::not_found)
        .with_state(app.clone())
}

/// Drover's own.
fn extension_routes(app: &AppState) -> Router {
    Router::new()
        .route("/drover/v1/migrations/{id}", get(extension::migrations::show))
        .route("/drover/v1/servers/{id}/placement", get(extension::placement::show).put(extension::placement::update))
        .route("/drover/v1/findings", get(extension::findings::index))
        .method_not_allowed_fallback(webob::not_found)
        .fallback(webob::not_found)
        .with_state(app.clone())
}
