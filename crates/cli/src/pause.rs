//! `drover pause` and `drover resume`.

use serde_json::json;

use crate::api::{ApiError, Client};

const PATH: &str = "/drover/v1/pause";

/// Holds back new migrations.
pub(crate) fn begin(client: &Client, reason: &str) -> Result<(), ApiError> {
    client.put(PATH, &json!({"pause": {"reason": reason}}), "pause")?;
    println!(
        "New migrations are accepted, checked and queued, and none starts; those under way end. `drover resume` lets them go on."
    );
    Ok(())
}

/// Lets them go on.
pub(crate) fn end(client: &Client) -> Result<(), ApiError> {
    client.delete(PATH)?;
    println!("New migrations start again; the queue goes on within seconds.");
    Ok(())
}
