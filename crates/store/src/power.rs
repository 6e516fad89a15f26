//! Power actions: one row each, from its request to its end.
//!
//! Who drives a row holds its lease; a drive that died loses it when its time is up, and the sweep ([`due`]) finds the row. A lease
//! protects nothing: an order that is given twice is one to the agent, and the end ([`close`]) is a compare-and-swap.

use std::time::Duration;

use drover_common::fault::Fault;
use drover_common::ids::{Incarnation, PowerActionId, RequestId, ServerId};
use drover_common::power::PowerAction;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{BadValue, StoreError};

/// How long a drive may be silent before another takes over: longer than one question to an agent.
pub const LEASE: Duration = Duration::from_secs(10);

/// A row of `power_actions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Power {
    /// Its id.
    pub id: PowerActionId,
    /// The server.
    pub server: ServerId,
    /// What is to be done.
    pub action: PowerAction,
    /// Its instance action.
    pub instance_action: i64,
    /// Who asked.
    pub user_id: String,
    /// In which project.
    pub project_id: String,
    /// By which request.
    pub request_id: RequestId,
    /// Whether the host did not answer the last time.
    pub is_silent: bool,
    /// Whether it is over.
    pub is_over: bool,
}

/// What the API accepts.
#[derive(Debug, Clone, Copy)]
pub struct NewPower<'a> {
    /// The server.
    pub server: ServerId,
    /// What is to be done.
    pub action: PowerAction,
    /// Its instance action.
    pub instance_action: i64,
    /// Who asked.
    pub user_id: &'a str,
    /// In which project.
    pub project_id: &'a str,
    /// By which request.
    pub request_id: &'a RequestId,
}

struct Record {
    id: i64,
    server_uuid: Uuid,
    action: String,
    instance_action_id: i64,
    user_id: String,
    project_id: String,
    request_id: String,
    is_silent: bool,
    is_over: bool,
}

impl Record {
    fn read(self) -> Result<Power, StoreError> {
        let action = self.action.parse().map_err(BadValue::Name).map_err(StoreError::row("power_actions", self.id))?;
        Ok(Power {
            id: PowerActionId(self.id),
            server: ServerId(self.server_uuid),
            action,
            instance_action: self.instance_action_id,
            user_id: self.user_id,
            project_id: self.project_id,
            request_id: RequestId::from_stored(self.request_id),
            is_silent: self.is_silent,
            is_over: self.is_over,
        })
    }
}

/// Writes a new one; the unique indexes allow one open action a server, and one open delete.
pub async fn insert(conn: &mut PgConnection, new: NewPower<'_>) -> Result<PowerActionId, StoreError> {
    let id = sqlx::query_scalar!(
        "INSERT INTO power_actions (server_uuid, action, instance_action_id, user_id, project_id, request_id)
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
        new.server.0,
        new.action.as_str(),
        new.instance_action,
        new.user_id,
        new.project_id,
        new.request_id.as_str(),
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::query("power.insert"))?;
    Ok(PowerActionId(id))
}

/// One of them.
pub async fn get(conn: &mut PgConnection, id: PowerActionId) -> Result<Option<Power>, StoreError> {
    let row = sqlx::query_as!(
        Record,
        r#"SELECT id, server_uuid, action, instance_action_id, user_id, project_id, request_id,
                  silent_since IS NOT NULL AS "is_silent!", ended_at IS NOT NULL AS "is_over!"
           FROM power_actions WHERE id = $1"#,
        id.0
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("power.get"))?;
    row.map(Record::read).transpose()
}

/// Those of a server that are not over, in the order of their requests: at most two, the second a delete.
pub async fn open_of_server(conn: &mut PgConnection, server: ServerId) -> Result<Vec<Power>, StoreError> {
    let rows = sqlx::query_as!(
        Record,
        r#"SELECT id, server_uuid, action, instance_action_id, user_id, project_id, request_id,
                  silent_since IS NOT NULL AS "is_silent!", ended_at IS NOT NULL AS "is_over!"
           FROM power_actions WHERE server_uuid = $1 AND ended_at IS NULL ORDER BY id"#,
        server.0
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("power.open_of_server"))?;
    rows.into_iter().map(Record::read).collect()
}

/// Takes the lease for `me`, a drive that has just begun. `None`: it is over, unknown, or driven already.
pub async fn take(conn: &mut PgConnection, id: PowerActionId, me: Incarnation) -> Result<Option<Power>, StoreError> {
    let row = sqlx::query_as!(
        Record,
        r#"UPDATE power_actions SET driven_by = $2, deadline = clock_timestamp() + make_interval(secs => $3), waiting_for = NULL
           WHERE id = $1 AND ended_at IS NULL AND (driven_by IS NULL OR deadline < clock_timestamp())
           RETURNING id, server_uuid, action, instance_action_id, user_id, project_id, request_id,
                     silent_since IS NOT NULL AS "is_silent!", false AS "is_over!""#,
        id.0,
        me.0,
        crate::seconds(LEASE),
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("power.take"))?;
    row.map(Record::read).transpose()
}

/// Goes on with the lease and reads the row anew. `None`: the lease is lost, or it is over.
pub async fn renew(conn: &mut PgConnection, id: PowerActionId, me: Incarnation) -> Result<Option<Power>, StoreError> {
    let row = sqlx::query_as!(
        Record,
        r#"UPDATE power_actions SET deadline = clock_timestamp() + make_interval(secs => $3)
           WHERE id = $1 AND ended_at IS NULL AND driven_by = $2
           RETURNING id, server_uuid, action, instance_action_id, user_id, project_id, request_id,
                     silent_since IS NOT NULL AS "is_silent!", false AS "is_over!""#,
        id.0,
        me.0,
        crate::seconds(LEASE),
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("power.renew"))?;
    row.map(Record::read).transpose()
}

/// Lets go; the sweep looks again in `look_again_in`.
pub async fn release(
    conn: &mut PgConnection,
    id: PowerActionId,
    me: Incarnation,
    look_again_in: Duration,
    waiting_for: &str,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE power_actions SET driven_by = NULL, deadline = clock_timestamp() + make_interval(secs => $3), waiting_for = $4
         WHERE id = $1 AND driven_by = $2 AND ended_at IS NULL",
        id.0,
        me.0,
        crate::seconds(look_again_in),
        waiting_for,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("power.release"))?;
    Ok(())
}

/// Those that nobody drives and whose time has come, the longest overdue first.
pub async fn due(conn: &mut PgConnection, limit: i64) -> Result<Vec<PowerActionId>, StoreError> {
    let rows = sqlx::query_scalar!(
        "SELECT id FROM power_actions WHERE ended_at IS NULL AND deadline < clock_timestamp() ORDER BY deadline LIMIT $1",
        limit
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("power.due"))?;
    Ok(rows.into_iter().map(PowerActionId).collect())
}

/// Writes that the host did not answer; returns for how long it has not, or `None` if the action is over.
pub async fn note_silence(conn: &mut PgConnection, id: PowerActionId) -> Result<Option<Duration>, StoreError> {
    let seconds = sqlx::query_scalar!(
        r#"UPDATE power_actions SET silent_since = coalesce(silent_since, clock_timestamp()) WHERE id = $1 AND ended_at IS NULL
           RETURNING extract(epoch FROM clock_timestamp() - silent_since)::double precision AS "seconds!""#,
        id.0
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("power.note_silence"))?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

/// Writes that the host answered.
pub async fn note_answer(conn: &mut PgConnection, id: PowerActionId) -> Result<(), StoreError> {
    sqlx::query!("UPDATE power_actions SET silent_since = NULL WHERE id = $1", id.0)
        .execute(conn)
        .await
        .map_err(StoreError::query("power.note_answer"))?;
    Ok(())
}

/// Ends it. `false`: it was over.
pub async fn close(conn: &mut PgConnection, id: PowerActionId, fault: Option<&Fault>) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE power_actions SET ended_at = clock_timestamp(), driven_by = NULL, waiting_for = NULL, fault_class = $2, fault_message = $3
         WHERE id = $1 AND ended_at IS NULL",
        id.0,
        fault.map(|fault| fault.class.as_str()),
        fault.map(|fault| fault.message.as_str()),
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("power.close"))?;
    Ok(done.rows_affected() == 1)
}
