//! `drover server keep`.

use serde_json::json;

use crate::api::{ApiError, Client};

/// Tells the API whose copy the guest is.
pub(crate) fn keep(client: &Client, server: &str, host: &str) -> Result<(), ApiError> {
    client.post(&format!("/drover/v1/servers/{server}/keep"), &json!({"host": host}))?;
    println!(
        "The copy on {host} is kept; the other one is being removed (`drover migration list --server {server}` shows the end)."
    );
    Ok(())
}
