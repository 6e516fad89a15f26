//! `/drover/v1/migrations/{id}`: everything that is known of a migration, while it runs and after; and its priority in the queue.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use drover_common::ids::MigrationId;
use drover_common::rpc::latest::MigrateDisk;
use drover_store::PgConnection;
use drover_store::line::{self, Position};
use drover_store::migrations::steps::{self, Step};
use drover_store::migrations::{self, Migration};
use serde_json::{Value, json};

use crate::app;
use crate::context::Asked;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;
use crate::time::ts;
use crate::validation::Schemas;

pub(crate) static PRIORITY: LazyLock<Schemas> = LazyLock::new(|| {
    let priority = json!({"type": "integer", "minimum": -1000, "maximum": 1000});
    let body =
        json!({"type": "object", "properties": {"priority": priority}, "required": ["priority"], "additionalProperties": false});
    Schemas::new([(v2(1), body)])
});

/// One migration, by its integer id.
pub(crate) async fn show(State(app): State<AppState>, asked: Asked, Path([id]): Path<1>) -> Result<Json<Value>, ApiError> {
    app.policy().enforce_own(Rule::DroverMigrationsShow, &asked.caller)?;
    let mut conn = app.store().connection().await?;
    let migration = lookup(&mut conn, &id).await?;
    told(&mut conn, &migration).await
}

/// `PUT` with `{"priority": n}`: the higher the sooner it leaves the queue; equal ones go in the order of their requests.
pub(crate) async fn update(
    State(app): State<AppState>,
    asked: Asked,
    Path([id]): Path<1>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    app.policy().enforce_own(Rule::DroverMigrationsUpdate, &asked.caller)?;
    PRIORITY.check_body(v2(1), &body)?;
    let priority = body.value["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok()).unwrap_or_default();
    let mut conn = app.store().connection().await?;
    let migration = lookup(&mut conn, &id).await?;
    if !app::migrations::set_priority(&app, &asked, &migration, priority).await? {
        let status = lookup(&mut conn, &id).await?.status.in_api();
        return Err(ApiError::Conflict(format!("Migration {id} is {status}: its priority does not matter any more.")));
    }
    let migration = lookup(&mut conn, &id).await?;
    told(&mut conn, &migration).await
}

async fn lookup(conn: &mut PgConnection, id: &str) -> Result<Migration, ApiError> {
    let unknown = || ApiError::NotFound(format!("Migration {id} could not be found."));
    let number = id.parse().map_err(|_| unknown())?;
    migrations::get(conn, MigrationId(number)).await?.ok_or_else(unknown)
}

async fn told(conn: &mut PgConnection, migration: &Migration) -> Result<Json<Value>, ApiError> {
    let steps = steps::of_migration(conn, migration.id).await?;
    let position = if migration.queued_at.is_some() { line::position(conn, migration.id).await? } else { None };
    Ok(Json(json!({"migration": view(migration, &steps, position)})))
}

/// What happened, in order: each phase, the rules of the copy, each decision with its reason.
fn step(step: &Step) -> Value {
    let Step { at, attempt, kind, what, why, elapsed_ms } = step;
    json!({"at": ts(*at), "attempt": attempt, "kind": kind, "what": what, "why": why, "job_elapsed_ms": elapsed_ms})
}

/// Where it stands in line for a slot.
fn queue(migration: &Migration, position: Position) -> Value {
    json!({
        "position": position.in_fleet,
        "position_at_source": position.at_source,
        // Hosts that only lack a slot; null: any may do.
        "hosts": migration.slot_hosts,
        "queued_at": migration.queued_at.map(ts),
    })
}

/// What is done with a disk, and why.
fn disk(disk: &MigrateDisk) -> Value {
    json!({
        "target": disk.disk.target,
        "source": disk.disk.source.shown(),
        "sharing": disk.sharing,
        "treatment": disk.treatment(),
        "why": disk.why,
    })
}

fn view(migration: &Migration, steps: &[Step], position: Option<Position>) -> Value {
    let policy = steps.iter().rev().find(|step| step.kind == "policy");
    json!({
        "id": migration.id,
        "uuid": migration.uuid,
        "server_uuid": migration.server,
        "migration_type": migration.migration_type,
        // As it is, and as Nova's API calls it.
        "internal_status": migration.status,
        "status": migration.status.in_api(),
        "waiting_for": migration.waiting_for,
        "priority": migration.priority,
        "queue": position.map(|position| queue(migration, position)),
        // Its share of the links, MiB/s; null: they have no limit, or it does not copy.
        "bandwidth_mib": migration.bandwidth_mib,
        "request": {
            "host": migration.requested_host,
            "skip_scheduler": migration.skip_scheduler,
            "block_migration": migration.block_migration,
            "disk_over_commit": migration.disk_over_commit,
            "user_id": migration.user_id,
            "project_id": migration.project_id,
            "request_id": migration.request_id,
        },
        "source_compute": migration.source,
        "source_node": migration.source_node,
        "dest_compute": migration.destination,
        "dest_node": migration.dest_node,
        "attempt": migration.attempt,
        "revision": migration.revision,
        "retries": migration.retries,
        "recoveries": migration.recoveries,
        "policy": policy.and_then(|step| step.why.as_deref()),
        "steps": steps.iter().map(step).collect::<Vec<_>>(),
        "refusals": migration.refusals,
        "disks": migration.data.iter().flat_map(|data| &data.disks).map(disk).collect::<Vec<_>>(),
        "fault": migration.fault,
        "abort_requested_by": migration.abort_requested_by,
        "force_complete_requested_by": migration.force_complete_requested_by,
        "progress": migration.progress,
        "job_result": migration.job_result,
        // As far as both hosts can know; null: QEMU's downtime or the announcement is not known.
        "network_blackout": migration.network_blackout().map(|blackout| {
            json!({"total_ms": blackout.total_ms(), "basis": blackout.basis()})
        }),
        "created_at": ts(migration.created_at),
        "claimed_at": migration.claimed_at.map(ts),
        "started_at": migration.started_at.map(ts),
        "switched_over_at": migration.switched_over_at.map(ts),
        "ended_at": migration.ended_at.map(ts),
        "updated_at": migration.updated_at.map(ts),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::PRIORITY);
    }
}
