//! Where a server may be: the zone it is pinned to and the group it is in. Nova takes both when it creates a server; servers that
//! came from the hosts are told later.

use drover_common::ids::ServerId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;

/// What was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The zone.
    pub availability_zone: Option<String>,
    /// The group's UUID.
    pub server_group: Option<Uuid>,
}

/// What is on record for a server.
pub async fn placement(conn: &mut PgConnection, id: ServerId) -> Result<Placement, StoreError> {
    let row = sqlx::query_as!(
        Placement,
        r#"SELECT pinned_availability_zone AS availability_zone, (SELECT g.uuid FROM server_groups g WHERE g.id = server_group_id) AS server_group
           FROM servers WHERE uuid = $1"#,
        id.0
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("servers.placement"))?;
    Ok(row.unwrap_or_default())
}

/// Writes it. Returns false, and writes nothing, when there is no such group.
pub async fn place(conn: &mut PgConnection, id: ServerId, placement: &Placement) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE servers SET pinned_availability_zone = $2, server_group_id = (SELECT g.id FROM server_groups g WHERE g.uuid = $3),
                updated_at = now()
         WHERE uuid = $1 AND ($3::uuid IS NULL OR EXISTS (SELECT FROM server_groups g WHERE g.uuid = $3))",
        id.0,
        placement.availability_zone,
        placement.server_group,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("servers.place"))?;
    Ok(done.rows_affected() == 1)
}
