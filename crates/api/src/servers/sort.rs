//! The order of `/servers`: `sort_key` and `sort_dir`, repeated in parallel.

use drover_store::servers::{Direction, SortKey};

use super::schema::IGNORED_SORT_KEYS;
use crate::error::ApiError;
use crate::validation::Query;

/// Keys that tell where a server is.
const FOR_ADMINS: [&str; 2] = ["host", "node"];

/// What the query asks for; `everything`: the caller may see hosts.
pub(super) fn from_query(query: &Query, everything: bool) -> Result<Vec<(SortKey, Direction)>, ApiError> {
    let keys: Vec<&str> = query.all("sort_key").collect();
    let mut directions = Vec::with_capacity(keys.len());
    for text in query.all("sort_dir") {
        let unknown = |_| ApiError::bad_request("Invalid input received: Unknown sort direction, must be 'desc' or 'asc'");
        directions.push(text.parse::<Direction>().map_err(unknown)?);
    }
    if keys.is_empty() {
        // Without keys a direction is that of the age.
        return Ok(directions.first().map(|&direction| (SortKey::CreatedAt, direction)).into_iter().collect());
    }
    if directions.len() > keys.len() {
        return Err(ApiError::bad_request("Invalid input received: Sort direction size exceeds sort key size"));
    }
    // As in Nova, keys without a direction go down.
    let directions = directions.into_iter().chain(std::iter::repeat(Direction::Descending));
    let mut sort = Vec::with_capacity(keys.len());
    for (key, direction) in keys.into_iter().zip(directions) {
        if FOR_ADMINS.contains(&key) && !everything {
            return Err(ApiError::ForbiddenBecause(if key == "host" {
                "Only administrators can sort servers by host"
            } else {
                "Only administrators can sort servers by node"
            }));
        }
        // A key that is the same for all servers here orders nothing.
        if let Ok(key) = key.parse::<SortKey>()
            && !IGNORED_SORT_KEYS.contains(&key.as_str())
        {
            sort.push((key, direction));
        }
    }
    Ok(sort)
}
