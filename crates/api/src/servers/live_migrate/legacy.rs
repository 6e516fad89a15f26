//! `os-migrateLive` on `/v2`, as the base API read it before there were schemas: every key must be there, extra ones do not
//! matter, and booleans are parsed strictly from what they look like as text.

use serde_json::Value;

use super::super::filter::strict_bool;
use super::Arguments;
use crate::error::ApiError;
use crate::validation::python::Python;

/// What the body says.
pub(super) fn parse(body: &Value) -> Result<Arguments, ApiError> {
    let missing = || ApiError::bad_request("host, block_migration and disk_over_commit must be specified for live migration.");
    let given = body.get("os-migrateLive").and_then(Value::as_object).ok_or_else(missing)?;
    let key = |name: &str| given.get(name).ok_or_else(missing);
    let (host, block_migration, disk_over_commit) = (key("host")?, key("block_migration")?, key("disk_over_commit")?);
    let boolean = |value: &Value| strict_bool(&Python::from(value).str());
    Ok(Arguments {
        // The base API looked no further at it: what is empty to Python names no host.
        host: match host {
            Value::Null | Value::Bool(false) => None,
            Value::String(text) if text.is_empty() => None,
            other => Some(Python::from(other).str()),
        },
        block_migration: Some(boolean(block_migration)?),
        disk_over_commit: Some(boolean(disk_over_commit)?),
        force: false,
    })
}

/// The base API's catch-all: what it did not expect is 400 with a sentence of its own, and the cause goes to the log.
pub(super) fn hide_unexpected(error: ApiError, id: &str, host: Option<&str>) -> ApiError {
    if !error.status().is_server_error() {
        return error;
    }
    let destination = host.map_or_else(|| "another host".to_owned(), |host| format!("host {host}"));
    ApiError::LegacyFailure { message: format!("Live migration of instance {id} to {destination} failed"), cause: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(arguments: &Value) -> Result<Arguments, String> {
        parse(&json!({"os-migrateLive": arguments})).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_must_be_there_and_extra_ones_do_not_matter() {
        const TEXT: &str = "host, block_migration and disk_over_commit must be specified for live migration.";
        for bad in [
            json!({"host": null, "block_migration": false}),
            json!({"host": null, "disk_over_commit": false}),
            json!({"block_migration": false, "disk_over_commit": false}),
            json!({}),
            json!(null),
            json!("h2"),
            json!(["host", "block_migration", "disk_over_commit"]),
        ] {
            assert_eq!(parsed(&bad), Err(TEXT.to_owned()), "{bad}");
        }
        assert!(parsed(&json!({"host": null, "block_migration": false, "disk_over_commit": false, "extra": 1})).is_ok());
    }

    #[test]
    fn booleans_are_what_they_look_like() {
        for (value, expected) in [
            (json!(true), Some(true)),
            (json!(1), Some(true)),
            (json!("T"), Some(true)),
            (json!(" yes "), Some(true)),
            (json!("On"), Some(true)),
            (json!(false), Some(false)),
            (json!(0), Some(false)),
            (json!("f"), Some(false)),
            (json!("OFF"), Some(false)),
            (json!(null), None),
            (json!(2), None),
            (json!(1.0), None),
            (json!("auto"), None),
            (json!(""), None),
            (json!({}), None),
        ] {
            let parsed = parsed(&json!({"host": null, "block_migration": value, "disk_over_commit": false}));
            assert_eq!(parsed.clone().ok().and_then(|arguments| arguments.block_migration), expected, "{value}");
            if expected.is_none() {
                let shown = Python::from(&value).str();
                assert!(parsed.unwrap_err().starts_with(&format!("Unrecognized value '{shown}', acceptable values are: '0', '1'")));
            }
        }
    }

    #[test]
    fn a_host_is_any_text_and_nothing_means_the_scheduler() {
        let host =
            |value: Value| parsed(&json!({"host": value, "block_migration": false, "disk_over_commit": false})).unwrap().host;
        assert_eq!(host(json!(null)), None);
        assert_eq!(host(json!("")), None);
        assert_eq!(host(json!("h 2%s")).as_deref(), Some("h 2%s"));
        assert_eq!(host(json!(5)).as_deref(), Some("5"));
    }
}
