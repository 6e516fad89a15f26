//! Every route there is, in one table. The same routes serve `/v2.1` and `/v2`, with and without a project in front
//! ([`crate::pipeline::mount`]). The same table makes the OpenAPI document ([`crate::openapi`]).
//!
//! *Adding a route:* a line: method, handler, the statuses of success, the versions that have it, what it does.

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{MethodFilter, MethodRouter, any, get};

use crate::microversion;
use crate::pipeline::{self, webob};
use crate::servers::{metadata, tags};
use crate::state::AppState;
use crate::{
    aggregates, availability_zones, extension, extensions, flavors, health, hypervisors, instance_actions, keypairs, limits,
    metrics, migrations, openapi, server_groups, server_migrations, servers, services, versions,
};

/// The whole API as a service.
pub fn router(app: &AppState) -> Router {
    let compute = pipeline::around(compute_routes(app), app);
    let extension = pipeline::around(extension_routes(app), app);
    let mut root = Router::new()
        .route("/", any(versions::list))
        .route("/healthz", get(health::show))
        .route("/openapi.json", get(openapi::show));
    for mount in ["/v2.1", "/v2.1/", "/v2.1/{*path}", "/v2", "/v2/", "/v2/{*path}"] {
        root = root.route_service(mount, compute.clone());
    }
    for mount in ["/drover/v1", "/drover/v1/", "/drover/v1/{*path}"] {
        root = root.route_service(mount, extension.clone());
    }
    root.fallback(versions::choices).with_state(app.clone())
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    /// With its variable segments in braces.
    pub(crate) path: &'static str,
    /// `GET` and so on.
    pub(crate) method: &'static str,
    /// The function's path; an operation's id is made of it.
    pub(crate) handler: &'static str,
    /// The statuses of success.
    pub(crate) success: &'static [u16],
    /// The first 2.x that has it.
    pub(crate) since: u16,
    /// The last one, if it was taken away.
    pub(crate) until: Option<u16>,
    /// What it does.
    pub(crate) summary: &'static str,
}

/// Makes the routes and what is told of them out of the same lines.
macro_rules! table {
    (
        $(#[$doc:meta])* $routes:ident, $operations:ident;
        $($path:literal { $($method:ident $handler:path => $success:expr, $since:literal, $until:expr, $summary:literal;)+ })+
    ) => {
        $(#[$doc])*
        fn $routes() -> Router<AppState> {
            Router::new()$(.route($path, MethodRouter::new()$(.on(MethodFilter::$method, $handler))+))+
        }

        $(#[$doc])*
        pub(crate) const $operations: &[Operation] = &[$($(Operation {
            path: $path,
            method: stringify!($method),
            handler: stringify!($handler),
            success: &$success,
            since: $since,
            until: $until,
            summary: $summary,
        }),+),+];
    };
}

table! {
    /// Nova's resources.
    compute, COMPUTE;
    "/" {
        GET versions::show => [200], 1, None, "Show the version";
    }
    "/servers" {
        GET servers::index => [200], 1, None, "List servers";
    }
    "/servers/detail" {
        GET servers::detail => [200], 1, None, "List servers with all fields";
    }
    "/servers/{id}" {
        GET servers::show => [200], 1, None, "Show a server";
        DELETE servers::power::delete => [204], 1, None, "End a server and remove its definition; its disks stay";
    }
    "/servers/{id}/action" {
        POST servers::action::run => [202], 1, None, "Do something to a server: migrate, pause, unpause, start, stop, reboot, lock, unlock, reset its state";
    }
    "/servers/{id}/migrations" {
        GET server_migrations::index => [200], 23, None, "List a server's live migrations in progress";
    }
    "/servers/{id}/migrations/{migration}" {
        GET server_migrations::show => [200], 23, None, "Show one of them";
        DELETE server_migrations::abort => [202], 24, None, "Abort one of them";
    }
    "/servers/{id}/migrations/{migration}/action" {
        POST server_migrations::action => [202], 22, None, "Force its completion";
    }
    "/servers/{id}/os-instance-actions" {
        GET instance_actions::index => [200], 1, None, "List what was done to a server";
    }
    "/servers/{id}/os-instance-actions/{request}" {
        GET instance_actions::show => [200], 1, None, "Show one of these with its steps";
    }
    "/servers/{id}/metadata" {
        GET metadata::index => [200], 1, None, "List a server's key-value pairs";
        POST metadata::create => [200], 1, None, "Add or change some";
        PUT metadata::update_all => [200], 1, None, "Replace all";
    }
    "/servers/{id}/metadata/{key}" {
        GET metadata::show => [200], 1, None, "Show a key-value pair";
        PUT metadata::update => [200], 1, None, "Set it";
        DELETE metadata::delete => [204], 1, None, "Remove it";
    }
    "/servers/{id}/tags" {
        GET tags::index => [200], 26, None, "List a server's tags";
        PUT tags::update_all => [200], 26, None, "Replace all";
        DELETE tags::delete_all => [204], 26, None, "Remove all";
    }
    "/servers/{id}/tags/{tag}" {
        GET tags::show => [204], 26, None, "Look whether a server has a tag";
        PUT tags::update => [201, 204], 26, None, "Add it";
        DELETE tags::delete => [204], 26, None, "Remove it";
    }
    "/os-keypairs" {
        GET keypairs::index => [200], 1, None, "List a user's key pairs";
        POST keypairs::create => [200, 201], 1, None, "Store a public key";
    }
    "/os-keypairs/{name}" {
        GET keypairs::show => [200], 1, None, "Show one of these";
        DELETE keypairs::delete => [202, 204], 1, None, "Remove it";
    }
    "/limits" {
        GET limits::show => [200], 1, None, "Show what a project may have, and has";
    }
    "/extensions" {
        GET extensions::index => [200], 1, None, "List what is served, for old clients";
    }
    "/extensions/{alias}" {
        GET extensions::show => [200], 1, None, "Show one of these";
    }
    "/os-migrations" {
        GET migrations::index => [200], 1, None, "List migrations";
    }
    "/os-services" {
        GET services::index => [200], 1, None, "List services";
    }
    "/os-services/{what}" {
        PUT services::update => [200], 1, None, "Enable, disable, force down";
        DELETE services::delete => [204], 1, None, "Forget a service";
    }
    "/os-hypervisors" {
        GET hypervisors::index => [200], 1, None, "List hypervisors";
    }
    "/os-hypervisors/detail" {
        GET hypervisors::detail => [200], 1, None, "List hypervisors with all fields";
    }
    "/os-hypervisors/statistics" {
        GET hypervisors::statistics => [200], 1, Some(87), "Show the sum over all hypervisors";
    }
    "/os-hypervisors/{id}" {
        GET hypervisors::show => [200], 1, None, "Show a hypervisor";
    }
    "/os-hypervisors/{id}/search" {
        GET hypervisors::search => [200], 1, Some(52), "Find hypervisors by name";
    }
    "/os-hypervisors/{id}/servers" {
        GET hypervisors::servers => [200], 1, Some(52), "The same with their servers";
    }
    "/os-hypervisors/{id}/uptime" {
        GET hypervisors::uptime => [501], 1, Some(87), "Not supported by libvirt";
    }
    "/os-aggregates" {
        GET aggregates::index => [200], 1, None, "List aggregates";
        POST aggregates::create => [200], 1, None, "Make an aggregate";
    }
    "/os-aggregates/{id}" {
        GET aggregates::show => [200], 1, None, "Show an aggregate";
        PUT aggregates::update => [200], 1, None, "Change its name or zone";
        DELETE aggregates::delete => [200], 1, None, "Remove it";
    }
    "/os-aggregates/{id}/action" {
        POST aggregates::action => [200], 1, None, "Add a host, remove a host, set metadata";
    }
    "/os-availability-zone" {
        GET availability_zones::index => [200], 1, None, "List availability zones";
    }
    "/os-availability-zone/detail" {
        GET availability_zones::detail => [200], 1, None, "The same with their hosts";
    }
    "/os-server-groups" {
        GET server_groups::index => [200], 1, None, "List server groups";
        POST server_groups::create => [200], 1, None, "Make a server group";
    }
    "/os-server-groups/{id}" {
        GET server_groups::show => [200], 1, None, "Show a server group";
        DELETE server_groups::delete => [204], 1, None, "Remove it";
    }
    "/flavors" {
        GET flavors::index => [200], 1, None, "List flavors";
    }
    "/flavors/detail" {
        GET flavors::detail => [200], 1, None, "List flavors with all fields";
    }
    "/flavors/{id}" {
        GET flavors::show => [200], 1, None, "Show a flavor";
    }
}

table! {
    /// Drover's own.
    extension_table, EXTENSION;
    "/drover/v1/migrations/{id}" {
        GET extension::migrations::show => [200], 1, None, "Everything that is known of a migration";
        PUT extension::migrations::update => [200], 1, None, "Say how soon it leaves the queue";
    }
    "/drover/v1/queue" {
        GET extension::queue::index => [200], 1, None, "The migrations that wait for a slot, in their order";
    }
    "/drover/v1/servers/{id}/placement" {
        GET extension::placement::show => [200], 1, None, "Show where a server may be";
        PUT extension::placement::update => [200], 1, None, "Say where a server may be";
    }
    "/drover/v1/servers/{id}/keep" {
        POST extension::keep::run => [202], 1, None, "Keep this host's copy in an ownership conflict";
    }
    "/drover/v1/pause" {
        GET extension::pause::show => [200], 1, None, "Show whether new migrations are held back";
        PUT extension::pause::begin => [200], 1, None, "Hold back new migrations";
        DELETE extension::pause::end => [204], 1, None, "Let them go on";
    }
    "/drover/v1/doctor" {
        GET extension::doctor::show => [200], 1, None, "Facts about the whole deployment, as they are now";
    }
    "/drover/v1/findings" {
        GET extension::findings::index => [200], 1, None, "What an operator should look at";
    }
}

fn compute_routes(app: &AppState) -> Router {
    // Only what matches a route has a microversion; a method that a path does not have is no route.
    compute()
        .route_layer(from_fn(microversion::negotiate))
        .route_layer(from_fn(metrics::note_route))
        .method_not_allowed_fallback(webob::not_found)
        .fallback(webob::not_found)
        .with_state(app.clone())
}

fn extension_routes(app: &AppState) -> Router {
    extension_table()
        .route_layer(from_fn(metrics::note_route))
        .method_not_allowed_fallback(webob::not_found)
        .fallback(webob::not_found)
        .with_state(app.clone())
}
