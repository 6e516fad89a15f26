//! `/servers/{id}/migrations`: a server's live migrations while they are under way, and the wishes to abort one or to force its
//! completion.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_common::ids::{MigrationId, ServerId};
use drover_common::migration::MigrationStatus;
use drover_common::server::{TaskState, VmState};
use drover_store::migrations::{self, Migration};
use drover_store::servers::Server;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use crate::app;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::microversion::v2;
use crate::migration_view::Common;
use crate::policy::Rule;
use crate::servers::action::{no_such_action, single_key};
use crate::servers::lookup;
use crate::servers::state::Verb;
use crate::state::AppState;
use crate::validation::Schemas;

const LIVE_MIGRATION: &str = "live-migration";
const FORCE_COMPLETE: &str = "force_complete";

#[derive(Serialize)]
struct View<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    server_uuid: ServerId,
    memory_total_bytes: Option<i64>,
    memory_processed_bytes: Option<i64>,
    memory_remaining_bytes: Option<i64>,
    disk_total_bytes: Option<i64>,
    disk_processed_bytes: Option<i64>,
    disk_remaining_bytes: Option<i64>,
}

impl<'a> View<'a> {
    fn of(migration: &'a Migration, call: &Call, hosts_visible: bool) -> Self {
        let [memory, disk] = migration.counters;
        Self {
            common: Common::of(migration, call.version, hosts_visible),
            server_uuid: migration.server,
            memory_total_bytes: memory[0],
            memory_processed_bytes: memory[1],
            memory_remaining_bytes: memory[2],
            disk_total_bytes: disk[0],
            disk_processed_bytes: disk[1],
            disk_remaining_bytes: disk[2],
        }
    }
}

/// `GET /servers/{id}/migrations`
pub(crate) async fn index(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<Response, ApiError> {
    call.since(v2(23))?;
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, call.caller(), &id).await?;
    app.policy().enforce(Rule::ServerMigrationsIndex, call.caller(), &server.project_id)?;
    let hosts_visible = app.policy().allows(Rule::ServerMigrationsIndexHost, call.caller(), &server.project_id);
    let found = migrations::in_progress_of_server(&mut conn, server.uuid).await?;
    let views: Vec<View<'_>> = found.iter().map(|migration| View::of(migration, &call, hosts_visible)).collect();
    Ok(Json(json!({"migrations": views})).into_response())
}

/// `GET /servers/{id}/migrations/{migration}`
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([id, migration_id]): Path<2>) -> Result<Response, ApiError> {
    call.since(v2(23))?;
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, call.caller(), &id).await?;
    app.policy().enforce(Rule::ServerMigrationsShow, call.caller(), &server.project_id)?;
    let found = of_server(&mut conn, &server, &migration_id).await?;
    let not_found = ApiError::NotFound;
    let Some(migration) = found else {
        return Err(not_found(format!("In-progress live migration {migration_id} is not found for server {}.", server.uuid)));
    };
    if migration.migration_type != LIVE_MIGRATION {
        return Err(not_found(format!("Migration {migration_id} for server {} is not live-migration.", server.uuid)));
    }
    if !migration.status.in_progress_for_api() {
        return Err(not_found(format!("Live migration {migration_id} for server {} is not in progress.", server.uuid)));
    }
    Ok(Json(json!({"migration": View::of(&migration, &call, true)})).into_response())
}

pub(crate) static ACTION: LazyLock<Schemas> = LazyLock::new(|| {
    Schemas::new([(
        v2(22),
        json!({
            "type": "object",
            "properties": {FORCE_COMPLETE: {"type": "null"}},
            "required": [FORCE_COMPLETE],
            "additionalProperties": false,
        }),
    )])
});

/// `POST /servers/{id}/migrations/{migration}/action`
pub(crate) async fn action(
    State(app): State<AppState>,
    call: Call,
    Path([id, migration_id]): Path<2>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    call.since(v2(22))?;
    let name = single_key(&body)?;
    if name != FORCE_COMPLETE {
        return Err(no_such_action(name));
    }
    ACTION.check_body(call.version, &body)?;
    let verb = Verb { name: FORCE_COMPLETE, mount: call.mount };
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, call.caller(), &id).await?;
    app.policy().enforce(Rule::ServerMigrationsForceComplete, call.caller(), &server.project_id)?;
    if server.locked && !call.caller().is_admin() {
        return Err(ApiError::locked(server.uuid));
    }
    if server.vm_state != VmState::Active {
        return Err(verb.refused(server.uuid, "vm_state", server.vm_state.as_str()));
    }
    check_migrating(&server, verb)?;
    let Some(migration) = of_server(&mut conn, &server, &migration_id).await? else {
        return Err(ApiError::bad_request(format!("Migration {migration_id} not found for instance {}", server.uuid)));
    };
    drop(conn);
    let refused = |status: MigrationStatus| wrong_status(&migration, status, "force complete");
    if migration.status != MigrationStatus::Running {
        return Err(refused(migration.status));
    }
    app::migrations::request_force_complete(&app, &call.asked, &migration).await?.map_err(refused)?;
    Ok(StatusCode::ACCEPTED)
}

/// `DELETE /servers/{id}/migrations/{migration}`
pub(crate) async fn abort(
    State(app): State<AppState>,
    call: Call,
    Path([id, migration_id]): Path<2>,
) -> Result<StatusCode, ApiError> {
    call.since(v2(24))?;
    let verb = Verb { name: "abort live migration", mount: call.mount };
    let mut conn = app.store().connection().await?;
    let server = lookup::live(&mut conn, call.caller(), &id).await?;
    app.policy().enforce(Rule::ServerMigrationsDelete, call.caller(), &server.project_id)?;
    if server.locked && !call.caller().is_admin() {
        return Err(verb.refused_while_idle(server.uuid));
    }
    check_migrating(&server, verb)?;
    let Some(migration) = of_server(&mut conn, &server, &migration_id).await? else {
        return Err(ApiError::NotFound(format!("Migration {migration_id} not found for instance {}", server.uuid)));
    };
    drop(conn);
    let refused = |status: MigrationStatus| wrong_status(&migration, status, "abort live migration");
    let early = call.version >= v2(65) && matches!(migration.status, MigrationStatus::Queued | MigrationStatus::Preparing);
    if !early && migration.status != MigrationStatus::Running {
        return Err(refused(migration.status));
    }
    app::migrations::request_abort(&app, &call.asked, &migration).await?.map_err(refused)?;
    Ok(StatusCode::ACCEPTED)
}

fn check_migrating(server: &Server, verb: Verb) -> Result<(), ApiError> {
    match server.task_state {
        Some(TaskState::Migrating) => Ok(()),
        // A migration may still be under way: who deletes the server has asked for its end.
        _ => Err(verb.refused_while_idle(server.uuid)),
    }
}

/// 400: in this status that cannot be done.
fn wrong_status(migration: &Migration, status: MigrationStatus, what: &str) -> ApiError {
    ApiError::bad_request(format!(
        "Migration {} state of instance {} is {status}. Cannot {what} while the migration is in this state.",
        migration.id, migration.server
    ))
}

/// The migration with this integer id, if it is one of the server's.
async fn of_server(conn: &mut drover_store::PgConnection, server: &Server, id: &str) -> Result<Option<Migration>, ApiError> {
    let Ok(id) = id.parse::<i64>() else { return Ok(None) };
    let found = migrations::get(conn, MigrationId(id)).await?;
    Ok(found.filter(|migration| migration.server == server.uuid))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::ACTION);
    }
}
