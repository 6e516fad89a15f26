//! What owners stick on servers: key-value pairs and tags. Whoever writes has locked the row, so that nothing is lost between.

use drover_common::ids::ServerId;
use sqlx::PgConnection;

use crate::error::StoreError;

/// Replaces the key-value pairs.
pub async fn set_metadata(conn: &mut PgConnection, id: ServerId, metadata: &serde_json::Value) -> Result<(), StoreError> {
    sqlx::query!("UPDATE servers SET metadata = $2, updated_at = now() WHERE uuid = $1", id.0, metadata)
        .execute(conn)
        .await
        .map_err(StoreError::query("servers.set_metadata"))?;
    Ok(())
}

/// Replaces the tags.
pub async fn set_tags(conn: &mut PgConnection, id: ServerId, tags: &[String]) -> Result<(), StoreError> {
    sqlx::query!("UPDATE servers SET tags = $2, updated_at = now() WHERE uuid = $1", id.0, tags)
        .execute(conn)
        .await
        .map_err(StoreError::query("servers.set_tags"))?;
    Ok(())
}
