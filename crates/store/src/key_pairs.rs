//! Key pairs of users: public keys by name.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::error::StoreError;

/// Name of the key that allows one key pair of a name and user.
pub const ONE_OF_A_NAME: &str = "key_pairs_user_name_key";

/// A row of `key_pairs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub user_id: String,
    /// Its name.
    pub name: String,
    /// In OpenSSH's form.
    pub public_key: String,
    /// MD5 of the key, with colons.
    pub fingerprint: String,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// Stores one.
pub async fn insert(
    conn: &mut PgConnection,
    user_id: &str,
    name: &str,
    public_key: &str,
    fingerprint: &str,
) -> Result<KeyPair, StoreError> {
    sqlx::query_as!(
        KeyPair,
        "INSERT INTO key_pairs (user_id, name, public_key, fingerprint) VALUES ($1, $2, $3, $4) RETURNING *",
        user_id,
        name,
        public_key,
        fingerprint,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::query("key_pairs.insert"))
}

/// One of a user's.
pub async fn get(conn: &mut PgConnection, user_id: &str, name: &str) -> Result<Option<KeyPair>, StoreError> {
    sqlx::query_as!(KeyPair, "SELECT * FROM key_pairs WHERE user_id = $1 AND name = $2", user_id, name)
        .fetch_optional(conn)
        .await
        .map_err(StoreError::query("key_pairs.get"))
}

/// A user's, by name, after the one named `marker`.
pub async fn list(
    conn: &mut PgConnection,
    user_id: &str,
    marker: Option<&str>,
    limit: Option<i64>,
) -> Result<Vec<KeyPair>, StoreError> {
    sqlx::query_as!(
        KeyPair,
        "SELECT * FROM key_pairs WHERE user_id = $1 AND ($2::text IS NULL OR name > $2) ORDER BY name LIMIT $3",
        user_id,
        marker,
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("key_pairs.list"))
}

/// Removes one. Returns whether it was there.
pub async fn delete(conn: &mut PgConnection, user_id: &str, name: &str) -> Result<bool, StoreError> {
    let done = sqlx::query!("DELETE FROM key_pairs WHERE user_id = $1 AND name = $2", user_id, name)
        .execute(conn)
        .await
        .map_err(StoreError::query("key_pairs.delete"))?;
    Ok(done.rows_affected() == 1)
}
