//! The body of `os-migrateLive` on `/v2.1`, one schema a range of microversions.
//!
//! | | 2.1 | 2.25 | 2.30 | 2.68 |
//! | --- | --- | --- | --- | --- |
//! | `host` | required | required | required | required |
//! | `block_migration` | boolean | boolean or `"auto"` | as 2.25 | as 2.25 |
//! | `disk_over_commit` | required | - | - | - |
//! | `force` | - | - | optional | - |

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Arguments;
use crate::error::ApiError;
use crate::extract::Body;
use crate::microversion::{Microversion, v2};
use crate::validation::Schemas;
use crate::validation::types::{as_bool, boolean, fqdn};

const KEY: &str = "os-migrateLive";
const AUTO: &str = "auto";

pub(in crate::servers) static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    Schemas::new([
        (v2(1), object(&boolean(), &[("disk_over_commit", boolean())], &["block_migration", "disk_over_commit", "host"])),
        (v2(25), object(&boolean_or_auto(), &[], &["block_migration", "host"])),
        (v2(30), object(&boolean_or_auto(), &[("force", boolean())], &["block_migration", "host"])),
        (v2(68), object(&boolean_or_auto(), &[], &["block_migration", "host"])),
    ])
});

fn object(block_migration: &Value, others: &[(&str, Value)], required: &[&str]) -> Value {
    let mut host = fqdn();
    host["type"] = json!(["string", "null"]);
    let mut properties = json!({"host": host, "block_migration": block_migration});
    for (name, schema) in others {
        properties[*name] = schema.clone();
    }
    let arguments = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    json!({"type": "object", "properties": {KEY: arguments}, "required": [KEY], "additionalProperties": false})
}

fn boolean_or_auto() -> Value {
    let mut schema = boolean();
    if let Some(spellings) = schema["enum"].as_array_mut() {
        spellings.push(Value::from(AUTO));
    }
    schema
}

/// What the body says.
pub(super) fn parse(version: Microversion, body: &Body) -> Result<Arguments, ApiError> {
    SCHEMAS.check_body(version, body)?;
    let given = &body.value[KEY];
    let block_migration = &given["block_migration"];
    Ok(Arguments {
        host: given["host"].as_str().map(str::to_owned),
        block_migration: (block_migration != AUTO).then(|| as_bool(block_migration)),
        disk_over_commit: given.get("disk_over_commit").map(as_bool),
        force: given.get("force").is_some_and(as_bool),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(minor: u16, arguments: &Value) -> Result<Arguments, String> {
        let body = Body::for_test(json!({KEY: arguments}).to_string().into());
        parse(v2(minor), &body).map_err(|error| error.to_string())
    }

    #[test]
    fn each_range_of_versions_takes_its_own_keys_and_no_others() {
        let old = json!({"host": null, "block_migration": false, "disk_over_commit": "True"});
        let auto = json!({"host": "h2", "block_migration": "auto"});
        let force = json!({"host": "h2", "block_migration": "no", "force": "yes"});
        for (minor, fits_old, fits_auto, fits_force) in [
            (1, true, false, false),
            (24, true, false, false),
            (25, false, true, false),
            (29, false, true, false),
            (30, false, true, true),
            (67, false, true, true),
            (68, false, true, false),
            (84, false, true, false),
        ] {
            assert_eq!(parsed(minor, &old).is_ok(), fits_old, "2.{minor}: {old}");
            assert_eq!(parsed(minor, &auto).is_ok(), fits_auto, "2.{minor}: {auto}");
            assert_eq!(parsed(minor, &force).is_ok(), fits_force, "2.{minor}: {force}");
        }
    }

    #[test]
    fn one_wish_comes_of_every_version() {
        assert_eq!(
            parsed(1, &json!({"host": null, "block_migration": "On", "disk_over_commit": "0"})),
            Ok(Arguments { host: None, block_migration: Some(true), disk_over_commit: Some(false), force: false })
        );
        assert_eq!(
            parsed(30, &json!({"host": "h2", "block_migration": "auto", "force": true})),
            Ok(Arguments { host: Some("h2".to_owned()), block_migration: None, disk_over_commit: None, force: true })
        );
    }

    #[test]
    fn auto_is_among_the_spellings_from_2_25_on() {
        let error = parsed(30, &json!({"host": null, "block_migration": "perhaps"})).unwrap_err();
        assert!(error.ends_with("'NO', 'No', 'no', 'auto']"), "{error}");
    }
}
