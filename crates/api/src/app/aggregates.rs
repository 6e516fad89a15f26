//! Changes of aggregates. Each locks them all: whether a host would be in two zones must not change while one looks.

use drover_common::ids::HostName;
use drover_store::aggregates::{self, AVAILABILITY_ZONE, Aggregate, NAME_KEY};
use drover_store::{StoreError, Transaction, audit, commit, hosts};
use serde_json::{Map, Value, json};

use super::migrations::entry;
use crate::aggregates::find;
use crate::context::Asked;
use crate::error::ApiError;
use crate::state::AppState;

/// Makes one.
pub(crate) async fn create(app: &AppState, asked: &Asked, name: &str, zone: Option<&str>) -> Result<Aggregate, ApiError> {
    let metadata = zone.map_or_else(|| json!({}), |zone| json!({AVAILABILITY_ZONE: zone}));
    let mut tx = begin(app).await?;
    let id = aggregates::insert(&mut tx, name, &metadata).await.map_err(|error| taken(error, name))?;
    end(tx, asked, id, "os-aggregates:create", name).await
}

/// Changes name or zone; a zone of null takes it away.
pub(crate) async fn update(
    app: &AppState,
    asked: &Asked,
    id: i64,
    name: Option<&str>,
    zone: Option<&Value>,
) -> Result<Aggregate, ApiError> {
    let mut tx = begin(app).await?;
    let mut aggregate = find(&mut tx, id).await?;
    if let Some(zone) = zone.map(Value::as_str) {
        check_zone(&mut tx, &aggregate, zone, &aggregate.hosts, "update").await.map_err(as_bad_request)?;
        set(&mut aggregate.metadata, AVAILABILITY_ZONE, zone);
    }
    let name = name.unwrap_or(&aggregate.name);
    aggregates::update(&mut tx, id, name, &aggregate.metadata).await.map_err(|error| taken(error, name))?;
    let details = format!("{name}, {}", aggregate.metadata);
    end(tx, asked, id, "os-aggregates:update", &details).await
}

/// Changes key-value pairs; a value of null takes one away.
pub(crate) async fn set_metadata(
    app: &AppState,
    asked: &Asked,
    id: i64,
    pairs: &Map<String, Value>,
) -> Result<Aggregate, ApiError> {
    let mut tx = begin(app).await?;
    let mut aggregate = find(&mut tx, id).await?;
    if let Some(zone) = pairs.get(AVAILABILITY_ZONE).map(Value::as_str) {
        if zone == Some("") {
            return Err(ApiError::bad_request(format!(
                "Cannot update metadata of aggregate {id}. Reason: Aggregate {id} does not support empty named availability zone."
            )));
        }
        check_zone(&mut tx, &aggregate, zone, &aggregate.hosts, "update metadata of").await.map_err(as_bad_request)?;
    }
    for (key, value) in pairs {
        set(&mut aggregate.metadata, key, value.as_str());
    }
    aggregates::update(&mut tx, id, &aggregate.name, &aggregate.metadata).await?;
    let details = aggregate.metadata.to_string();
    end(tx, asked, id, "os-aggregates:set_metadata", &details).await
}

/// Removes one that is empty.
pub(crate) async fn delete(app: &AppState, asked: &Asked, id: i64) -> Result<(), ApiError> {
    let mut tx = begin(app).await?;
    let aggregate = find(&mut tx, id).await?;
    if !aggregate.hosts.is_empty() {
        // Nova's words, which name another action.
        return Err(ApiError::bad_request(format!("Cannot remove host from aggregate {id}. Reason: Host aggregate is not empty.")));
    }
    aggregates::delete(&mut tx, id).await?;
    audit::write(&mut tx, entry(asked, "os-aggregates:delete", &format!("aggregate {id}"), Some(&aggregate.name))).await?;
    Ok(commit(tx).await?)
}

/// Puts a host in.
pub(crate) async fn add_host(app: &AppState, asked: &Asked, id: i64, host: &str) -> Result<Aggregate, ApiError> {
    let mut tx = begin(app).await?;
    let unknown = || ApiError::NotFound(format!("Compute host {host} could not be found."));
    let known = HostName::new(host).map_err(|_| unknown())?;
    if !hosts::exists(&mut tx, &known).await? {
        return Err(unknown());
    }
    let aggregate = find(&mut tx, id).await?;
    if aggregate.hosts.iter().any(|other| other == host) {
        return Err(ApiError::Conflict(format!("Aggregate {id} already has host {host}.")));
    }
    check_zone(&mut tx, &aggregate, aggregate.availability_zone(), &[host.to_owned()], "add host to").await?;
    aggregates::add_host(&mut tx, id, host).await?;
    end(tx, asked, id, "os-aggregates:add_host", host).await
}

/// Takes a host out.
pub(crate) async fn remove_host(app: &AppState, asked: &Asked, id: i64, host: &str) -> Result<Aggregate, ApiError> {
    let mut tx = begin(app).await?;
    if !aggregates::remove_host(&mut tx, id, host).await? {
        return Err(ApiError::NotFound(format!("Cannot remove host {host} in aggregate {id}")));
    }
    end(tx, asked, id, "os-aggregates:remove_host", host).await
}

async fn begin(app: &AppState) -> Result<Transaction, StoreError> {
    let mut tx = app.store().begin().await?;
    aggregates::lock(&mut tx).await?;
    Ok(tx)
}

async fn end(mut tx: Transaction, asked: &Asked, id: i64, action: &str, details: &str) -> Result<Aggregate, ApiError> {
    audit::write(&mut tx, entry(asked, action, &format!("aggregate {id}"), Some(details))).await?;
    let aggregate = find(&mut tx, id).await?;
    commit(tx).await?;
    tracing::info!(aggregate.id = id, action, details, "aggregate changed");
    Ok(aggregate)
}

fn set(metadata: &mut Value, key: &str, value: Option<&str>) {
    if let Some(pairs) = metadata.as_object_mut() {
        match value {
            Some(value) => drop(pairs.insert(key.to_owned(), Value::from(value))),
            None => drop(pairs.remove(key)),
        }
    }
}

fn taken(error: StoreError, name: &str) -> ApiError {
    if error.broken_constraint() == Some(NAME_KEY) {
        return ApiError::Conflict(format!("Aggregate {name} already exists."));
    }
    error.into()
}

/// Nova calls it a conflict for one host and a bad request for all of them.
fn as_bad_request(error: ApiError) -> ApiError {
    match error {
        ApiError::Conflict(text) => ApiError::BadRequest(text),
        other => other,
    }
}

/// Refuses to put hosts that are in one zone into another, and to take a zone from under servers that must stay in theirs.
async fn check_zone(
    tx: &mut Transaction,
    aggregate: &Aggregate,
    zone: Option<&str>,
    hosts: &[String],
    what: &str,
) -> Result<(), ApiError> {
    let refused = |why: String| {
        let id = aggregate.id;
        Err(ApiError::Conflict(format!("Cannot {what} aggregate {id}. Reason: {why}")))
    };
    let Some(zone) = zone else { return Ok(()) };
    if let Some((host, other)) = aggregates::in_another_zone(tx, aggregate.id, hosts, zone).await? {
        return refused(format!("One or more hosts already in availability zone(s) ['{other}'] ({host})."));
    }
    if let Some((host, other)) = aggregates::with_pinned_server(tx, hosts, zone).await? {
        return refused(format!("{host} has servers that must stay in availability zone {other}."));
    }
    Ok(())
}
