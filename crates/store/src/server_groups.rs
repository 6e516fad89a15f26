//! Server groups. Members are the servers that point at them.

use chrono::{DateTime, Utc};
use drover_common::ids::ServerId;
use drover_common::server_group::{GroupPolicy, GroupRule};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{BadValue, StoreError};

/// A row of `server_groups`, with its members.
#[derive(Debug, Clone)]
pub struct ServerGroup {
    /// For what points at it.
    pub id: i64,
    /// Nova's id.
    pub uuid: Uuid,
    /// Its name; several may have the same.
    pub name: String,
    /// Whose it is.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// What it wants.
    pub policy: GroupPolicy,
    /// Of anti-affinity: members that one host may have; none: one.
    pub max_server_per_host: Option<i32>,
    /// Its servers, the oldest first.
    pub members: Vec<Uuid>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

struct Record {
    id: i64,
    uuid: Uuid,
    name: String,
    project_id: String,
    user_id: String,
    policy: String,
    max_server_per_host: Option<i32>,
    members: Vec<Uuid>,
    created_at: DateTime<Utc>,
}

impl Record {
    fn read(self) -> Result<ServerGroup, StoreError> {
        let policy = self.policy.parse().map_err(BadValue::from).map_err(StoreError::row("server_groups", self.id))?;
        Ok(ServerGroup {
            id: self.id,
            uuid: self.uuid,
            name: self.name,
            project_id: self.project_id,
            user_id: self.user_id,
            policy,
            max_server_per_host: self.max_server_per_host,
            members: self.members,
            created_at: self.created_at,
        })
    }
}

/// Groups in the order of their making: of one project or of all, one or all, from `offset` on.
pub async fn list(
    conn: &mut PgConnection,
    project: Option<&str>,
    only: Option<Uuid>,
    limit: i64,
    offset: i64,
) -> Result<Vec<ServerGroup>, StoreError> {
    let rows = sqlx::query_as!(
        Record,
        r#"SELECT id, uuid, name, project_id, user_id, policy, max_server_per_host, created_at,
                  ARRAY(SELECT s.uuid FROM servers s WHERE s.server_group_id = g.id AND s.deleted_at IS NULL ORDER BY s.id) AS "members!"
           FROM server_groups g
           WHERE ($1::text IS NULL OR project_id = $1) AND ($2::uuid IS NULL OR uuid = $2) ORDER BY id LIMIT $3 OFFSET $4"#,
        project,
        only,
        limit,
        offset,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("server_groups.list"))?;
    rows.into_iter().map(Record::read).collect()
}

/// One group.
pub async fn get(conn: &mut PgConnection, uuid: Uuid) -> Result<Option<ServerGroup>, StoreError> {
    Ok(list(conn, None, Some(uuid), 1, 0).await?.pop())
}

/// A group to be made.
#[derive(Debug, Clone)]
pub struct NewServerGroup<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whose.
    pub project_id: &'a str,
    /// By whom.
    pub user_id: &'a str,
    /// What it wants.
    pub policy: GroupPolicy,
    /// Members that one host may have.
    pub max_server_per_host: Option<i32>,
}

/// Makes one.
pub async fn insert(conn: &mut PgConnection, new: &NewServerGroup<'_>) -> Result<Uuid, StoreError> {
    sqlx::query_scalar!(
        "INSERT INTO server_groups (name, project_id, user_id, policy, max_server_per_host) VALUES ($1, $2, $3, $4, $5) RETURNING uuid",
        new.name,
        new.project_id,
        new.user_id,
        new.policy.as_str(),
        new.max_server_per_host,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::query("server_groups.insert"))
}

/// Removes one; its members are in none then.
pub async fn delete(conn: &mut PgConnection, uuid: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query!("DELETE FROM server_groups WHERE uuid = $1", uuid)
        .execute(conn)
        .await
        .map_err(StoreError::query("server_groups.delete"))?;
    Ok(done.rows_affected() == 1)
}

/// The group of a server, and how many others are in it.
pub async fn rule_of(conn: &mut PgConnection, server: ServerId) -> Result<Option<GroupRule>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT g.id, g.name, g.policy, g.max_server_per_host,
                  (SELECT count(*) FROM servers o WHERE o.server_group_id = g.id AND o.uuid <> s.uuid AND o.deleted_at IS NULL) AS "others!"
           FROM servers s JOIN server_groups g ON g.id = s.server_group_id WHERE s.uuid = $1"#,
        server.0
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("server_groups.rule_of"))?;
    let Some(row) = row else { return Ok(None) };
    let policy = row.policy.parse().map_err(BadValue::from).map_err(StoreError::row("server_groups", row.id))?;
    let max_server_per_host = row.max_server_per_host.unwrap_or(1).into();
    Ok(Some(GroupRule { name: row.name, policy, max_server_per_host, others: row.others }))
}

/// The late check: why the server's group forbids `host`, if it does. Locks the group until the end of the transaction, so of two
/// members that claim at once the second one sees what the first one took (the scheduler's filters saw neither).
pub async fn refuse_late(conn: &mut PgConnection, server: ServerId, host: &str) -> Result<Option<String>, StoreError> {
    let locked = sqlx::query!(
        "SELECT g.id FROM server_groups g JOIN servers s ON s.server_group_id = g.id WHERE s.uuid = $1 FOR UPDATE OF g",
        server.0
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::query("server_groups.refuse_late"))?;
    let Some(group) = locked else { return Ok(None) };
    // A statement of its own: it sees what was committed while this one waited for the lock.
    let there = sqlx::query_scalar!(
        r#"SELECT count(*) AS "there!" FROM servers o
           WHERE o.server_group_id = $1 AND o.uuid <> $2 AND o.deleted_at IS NULL
             AND (o.host = $3 OR EXISTS (SELECT FROM migrations m JOIN claims c ON c.migration_id = m.id
                                         WHERE m.server_uuid = o.uuid AND c.dest_host = $3))"#,
        group.id,
        server.0,
        host,
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(StoreError::query("server_groups.refuse_late"))?;
    Ok(rule_of(conn, server).await?.and_then(|rule| rule.refuse(host, there)))
}
