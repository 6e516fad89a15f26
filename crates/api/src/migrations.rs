//! `/os-migrations`: all migrations there were, for operators.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_common::ids::ServerId;
use drover_store::migrations::{self, Listing, Migration};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Call;
use crate::error::ApiError;
use crate::links::Link;
use crate::microversion::v2;
use crate::migration_view::Common;
use crate::policy::Rule;
use crate::servers::lookup;
use crate::state::AppState;
use crate::validation::types::{common, date_time, non_negative_integer, single};
use crate::validation::{Query, Schemas};

pub(crate) static LIST: LazyLock<Schemas> = LazyLock::new(|| {
    let mut properties = json!({
        "hidden": common(),
        "host": common(),
        "instance_uuid": common(),
        "source_compute": common(),
        "status": common(),
        "migration_type": common(),
    });
    let object = |properties: &Value, open: bool| json!({"type": "object", "properties": properties, "additionalProperties": open});
    let mut versions = vec![(v2(1), object(&properties, true))];
    properties["limit"] = single(&non_negative_integer());
    properties["marker"] = single(&json!({"type": "string"}));
    properties["changes-since"] = single(&date_time());
    versions.push((v2(59), object(&properties, false)));
    properties["changes-before"] = single(&date_time());
    versions.push((v2(66), object(&properties, false)));
    properties["user_id"] = common();
    properties["project_id"] = common();
    versions.push((v2(80), object(&properties, false)));
    Schemas::new(versions)
});

#[derive(Serialize)]
struct View<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    instance_uuid: ServerId,
    /// Flavors have no numbers here: servers come from the hosts, not from a catalogue.
    old_instance_type_id: Option<i64>,
    new_instance_type_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    migration_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Vec<Link>>,
}

impl<'a> View<'a> {
    fn of(migration: &'a Migration, call: &Call, hosts_visible: bool) -> Self {
        let since_2_23 = call.version >= v2(23);
        let collection = format!("servers/{}/migrations", migration.server);
        let linked = since_2_23 && migration.status.in_progress_for_api();
        Self {
            common: Common::of(migration, call.version, hosts_visible),
            instance_uuid: migration.server,
            old_instance_type_id: None,
            new_instance_type_id: None,
            migration_type: since_2_23.then_some(&*migration.migration_type),
            links: linked.then(|| call.links.of(&collection, &migration.id.to_string())),
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    migrations: Vec<View<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    migrations_links: Option<Vec<Link>>,
}

/// `GET /os-migrations`
pub(crate) async fn index(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    let query = LIST.check_query(call.version, &call.query)?;
    authorise(&app, &call, &query)?;
    let hosts_visible = app.policy().allows(Rule::MigrationsIndexHost, call.caller(), &call.caller().project_id);
    let paged = call.version >= v2(59);
    let limit = if paged { Some(query.limit(app.config().max_limit)?) } else { None };
    let mut found = match listing(&query, limit)? {
        Some(mut listing) => {
            let mut conn = app.store().connection().await?;
            listing.marker = marker(&mut conn, &query).await?;
            migrations::list(&mut conn, &listing).await?
        }
        None => Vec::new(),
    };
    let full = limit.is_some_and(|limit| limit > 0 && i64::try_from(found.len()) == Ok(limit));
    let next = found.last().filter(|_| full).map(|last| call.links.next("os-migrations", &call.query, &last.uuid.to_string()));
    if !paged {
        found.reverse(); // Before there were pages, in the order in which they came.
    }
    let migrations = found.iter().map(|migration| View::of(migration, &call, hosts_visible)).collect();
    Ok(Json(Document { migrations, migrations_links: next }).into_response())
}

/// Those of one's own project, or all: the latter needs a rule of its own.
fn authorise(app: &AppState, call: &Call, query: &Query) -> Result<(), ApiError> {
    app.policy().enforce_own(Rule::MigrationsIndex, call.caller())?;
    if query.get("project_id") == Some(&call.caller().project_id) {
        return Ok(());
    }
    app.policy().enforce_own(Rule::MigrationsIndexAllProjects, call.caller())
}

/// What the database is asked; `None` when nothing can match.
fn listing(query: &Query, limit: Option<i64>) -> Result<Option<Listing>, ApiError> {
    let changes = query.changes()?;
    let text = |name: &str| query.get(name).map(str::to_owned);
    let server = match query.get("instance_uuid").map(lookup::uuid) {
        Some(None) => return Ok(None),
        Some(Some(server)) => Some(server.0),
        None => None,
    };
    if query.get("hidden").is_some_and(|hidden| matches!(hidden.to_ascii_lowercase().as_str(), "1" | "true" | "t" | "yes" | "on")) {
        return Ok(None); // None of ours is; and Nova takes them out again.
    }
    let host = text("host");
    Ok(Some(Listing {
        source_compute: text("source_compute").filter(|_| host.is_none()),
        host,
        status: text("status"),
        migration_type: text("migration_type"),
        server,
        user_id: text("user_id"),
        project_id: text("project_id"),
        changes_since: changes.since,
        changes_before: changes.before,
        marker: None,
        limit,
    }))
}

async fn marker(conn: &mut drover_store::PgConnection, query: &Query) -> Result<Option<uuid::Uuid>, ApiError> {
    let Some(text) = query.get("marker") else { return Ok(None) };
    let unknown = || ApiError::bad_request(format!("Marker {text} could not be found."));
    let uuid = lookup::uuid(text).ok_or_else(unknown)?.0;
    if migrations::exists(conn, uuid).await? { Ok(Some(uuid)) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::LIST);
    }
}
