//! Instance actions, their events, and faults: what happened to a server, for its owner.

use std::time::Duration;

use chrono::{DateTime, Utc};
use drover_common::fault::Fault;
use drover_common::ids::{HostName, RequestId, ServerId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;

/// Names of actions and events, as Nova has them.
pub mod names {
    /// The action of `os-migrateLive`.
    pub const LIVE_MIGRATION: &str = "live-migration";
    /// The action of an abort.
    pub const LIVE_MIGRATION_CANCEL: &str = "live_migration_cancel";
    /// The action of force-complete.
    pub const LIVE_MIGRATION_FORCE_COMPLETE: &str = "live_migration_force_complete";
    /// The action of `os-resetState`.
    pub const RESET_STATE: &str = "resetState";
    /// The action of `lock`.
    pub const LOCK: &str = "lock";
    /// The action of `unlock`.
    pub const UNLOCK: &str = "unlock";
    /// The conductor's work when the caller waits for the prechecks (below 2.34).
    pub const CONDUCTOR_MIGRATE_SERVER: &str = "conductor_migrate_server";
    /// The conductor's work when the caller does not wait.
    pub const CONDUCTOR_LIVE_MIGRATE_INSTANCE: &str = "conductor_live_migrate_instance";
    /// The check on the destination.
    pub const CHECK_DESTINATION: &str = "compute_check_can_live_migrate_destination";
    /// The check on the source.
    pub const CHECK_SOURCE: &str = "compute_check_can_live_migrate_source";
    /// The destination makes itself ready.
    pub const PRE: &str = "compute_pre_live_migration";
    /// libvirt's job.
    pub const LIVE_MIGRATE: &str = "compute_live_migration";
    /// The destination takes over.
    pub const POST_AT_DESTINATION: &str = "compute_post_live_migration_at_destination";
    /// The destination is rolled back.
    pub const ROLLBACK_AT_DESTINATION: &str = "compute_rollback_live_migration_at_destination";
}

/// A row of `instance_actions`.
#[derive(Debug, Clone)]
pub struct Action {
    /// Its id.
    pub id: i64,
    /// The server.
    pub server_uuid: Uuid,
    /// What was asked for.
    pub action: String,
    /// By which API request; Nova's id of the action.
    pub request_id: String,
    /// By whom.
    pub user_id: Option<String>,
    /// In which project.
    pub project_id: Option<String>,
    /// `Error` once something failed.
    pub message: Option<String>,
    /// When.
    pub start_time: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
}

/// A row of `instance_action_events`.
#[derive(Debug, Clone)]
pub struct ActionEvent {
    /// Its id.
    pub id: i64,
    /// What was done.
    pub event: String,
    /// Where.
    pub host: Option<String>,
    /// From.
    pub start_time: DateTime<Utc>,
    /// To.
    pub finish_time: Option<DateTime<Utc>>,
    /// `Success` or `Error`.
    pub result: Option<String>,
    /// Why not.
    pub details: Option<String>,
}

/// Records that an API request does something to a server.
pub async fn start(
    conn: &mut PgConnection,
    server: ServerId,
    action: &str,
    request_id: &RequestId,
    user_id: &str,
    project_id: &str,
) -> Result<i64, StoreError> {
    sqlx::query_scalar!(
        "INSERT INTO instance_actions (server_uuid, action, request_id, user_id, project_id) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        server.0,
        action,
        request_id.as_str(),
        user_id,
        project_id,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::query("actions.start"))
}

/// A step of an action begins; returns the event's id. One that is open already (its driver died) goes on under its first id.
pub async fn begin_event(conn: &mut PgConnection, action: i64, event: &str, host: &str) -> Result<i64, StoreError> {
    sqlx::query_scalar!(
        r#"WITH open AS (SELECT id FROM instance_action_events
                         WHERE action_id = $1 AND event = $2 AND host = $3 AND finish_time IS NULL ORDER BY id LIMIT 1),
                new AS (INSERT INTO instance_action_events (action_id, event, host)
                        SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT FROM open) RETURNING id)
           SELECT coalesce((SELECT id FROM open), (SELECT id FROM new)) AS "id!""#,
        action,
        event,
        host,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::query("actions.begin_event"))
}

/// A step of an action ended.
pub async fn end_event(conn: &mut PgConnection, event: i64, error: Option<&Fault>) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE instance_action_events SET finish_time = clock_timestamp(), result = $2, details = $3 WHERE id = $1 AND finish_time IS NULL",
        event,
        if error.is_some() { "Error" } else { "Success" },
        error.map(|fault| fault.message.as_str()),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("actions.end_event"))?;
    Ok(())
}

/// A step that is over.
#[derive(Debug)]
pub struct EndedEvent {
    /// Nova's name for it.
    pub name: &'static str,
    /// Where it was done.
    pub host: HostName,
    /// How long ago it began.
    pub lasted: Duration,
    /// Why it failed, if it did.
    pub fault: Option<Fault>,
}

/// Steps that are over: a row each, in their order, written once.
pub async fn record_events(conn: &mut PgConnection, action: i64, events: &[EndedEvent]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = events.iter().map(|event| event.name.to_owned()).collect();
    let hosts: Vec<String> = events.iter().map(|event| event.host.to_string()).collect();
    let lasted: Vec<f64> = events.iter().map(|event| crate::seconds(event.lasted)).collect();
    let errors: Vec<Option<String>> = events.iter().map(|event| event.fault.as_ref().map(|fault| fault.message.clone())).collect();
    sqlx::query!(
        "INSERT INTO instance_action_events (action_id, event, host, start_time, finish_time, result, details)
         SELECT $1, e.name, e.host, clock_timestamp() - make_interval(secs => e.lasted), clock_timestamp(),
                CASE WHEN e.error IS NULL THEN 'Success' ELSE 'Error' END, e.error
         FROM unnest($2::text[], $3::text[], $4::float8[], $5::text[]) WITH ORDINALITY AS e (name, host, lasted, error, place)
         ORDER BY e.place",
        action,
        &names,
        &hosts,
        &lasted,
        &errors as &[Option<String>],
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("actions.record_events"))?;
    Ok(())
}

/// Marks the whole action as failed, and whatever of it is still open.
pub async fn fail(conn: &mut PgConnection, action: i64, fault: &Fault) -> Result<(), StoreError> {
    sqlx::query!("UPDATE instance_actions SET message = 'Error', updated_at = now() WHERE id = $1", action)
        .execute(&mut *conn)
        .await
        .map_err(StoreError::query("actions.fail"))?;
    close_events(conn, action, Some(fault)).await
}

/// Closes whatever is still open of an action.
pub async fn close_events(conn: &mut PgConnection, action: i64, fault: Option<&Fault>) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE instance_action_events SET finish_time = clock_timestamp(), result = $2, details = $3
         WHERE action_id = $1 AND finish_time IS NULL",
        action,
        if fault.is_some() { "Error" } else { "Success" },
        fault.map(|f| f.message.as_str()),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("actions.close_events"))?;
    Ok(())
}

/// What a listing of a server's actions asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Listing {
    /// Changed at this time or after it.
    pub changes_since: Option<DateTime<Utc>>,
    /// Changed at this time or before it.
    pub changes_before: Option<DateTime<Utc>>,
    /// After this action (its [`Action::id`]) in the order of the listing.
    pub marker: Option<i64>,
    /// At most so many; none: all.
    pub limit: Option<i64>,
}

/// A server's actions, newest first.
pub async fn list(conn: &mut PgConnection, server: ServerId, listing: Listing) -> Result<Vec<Action>, StoreError> {
    sqlx::query_as!(
        Action,
        "SELECT * FROM instance_actions
         WHERE server_uuid = $1
           AND ($2::timestamptz IS NULL OR updated_at >= $2)
           AND ($3::timestamptz IS NULL OR updated_at <= $3)
           AND ($4::bigint IS NULL OR id < $4)
         ORDER BY id DESC LIMIT $5",
        server.0,
        listing.changes_since,
        listing.changes_before,
        listing.marker,
        listing.limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("actions.list"))
}

/// One action of a server, by the request that started it.
pub async fn get(conn: &mut PgConnection, server: ServerId, request_id: &str) -> Result<Option<Action>, StoreError> {
    sqlx::query_as!(Action, "SELECT * FROM instance_actions WHERE server_uuid = $1 AND request_id = $2", server.0, request_id)
        .fetch_optional(conn)
        .await
        .map_err(StoreError::query("actions.get"))
}

/// The steps of an action, newest first.
pub async fn events(conn: &mut PgConnection, action: i64) -> Result<Vec<ActionEvent>, StoreError> {
    sqlx::query_as!(
        ActionEvent,
        "SELECT id, event, host, start_time, finish_time, result, details FROM instance_action_events WHERE action_id = $1 ORDER BY id DESC",
        action
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("actions.events"))
}

/// Longest text of a fault (Nova cuts there too).
const FAULT_LENGTH: usize = 255;

/// Records a fault on the server; the API shows the latest one while the server is in ERROR.
pub async fn record_fault(conn: &mut PgConnection, server: ServerId, fault: &Fault) -> Result<(), StoreError> {
    let short: String = fault.message.chars().take(FAULT_LENGTH).collect();
    sqlx::query!(
        "INSERT INTO instance_faults (server_uuid, code, message, details) VALUES ($1, $2, $3, $4)",
        server.0,
        fault.class.code(),
        short,
        format!("{}: {}", fault.class, fault.message),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("actions.record_fault"))?;
    Ok(())
}

/// A server's fault.
#[derive(Debug, Clone)]
pub struct ServerFault {
    /// Whose.
    pub server_uuid: Uuid,
    /// An HTTP-like code.
    pub code: i32,
    /// Short.
    pub message: String,
    /// Long.
    pub details: Option<String>,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// The latest fault of each of these servers.
pub async fn latest_faults(conn: &mut PgConnection, servers: &[Uuid]) -> Result<Vec<ServerFault>, StoreError> {
    sqlx::query_as!(
        ServerFault,
        "SELECT DISTINCT ON (server_uuid) server_uuid, code, message, details, created_at FROM instance_faults
         WHERE server_uuid = ANY ($1) ORDER BY server_uuid, id DESC",
        servers
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("actions.latest_faults"))
}
