//! `drover finding list`.

use serde_json::Value;

use crate::api::{ApiError, Client};
use crate::table::{shown, table};

/// Prints the open findings.
pub(crate) fn list(client: &Client) -> Result<(), ApiError> {
    let findings = client.get("/drover/v1/findings", &[], "findings")?;
    let findings = findings.as_array().map(Vec::as_slice).unwrap_or_default();
    if findings.is_empty() {
        println!("No open findings.");
        return Ok(());
    }
    let keys = ["id", "kind", "server_uuid", "host", "created_at", "details"];
    let row = |finding: &Value| keys.iter().map(|key| shown(&finding[*key])).collect();
    let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
    print!("{}", table(&["ID", "KIND", "SERVER", "HOST", "SINCE", "DETAILS"], &rows));
    Ok(())
}
