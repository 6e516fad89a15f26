//! Bodies of `/os-aggregates` (`nova/api/openstack/compute/schemas/aggregates.py`).

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::microversion::v2;
use crate::validation::Schemas;
use crate::validation::types::{fqdn, name};

fn body(key: &str, arguments: &Value) -> Schemas {
    let body = json!({"type": "object", "properties": {key: arguments}, "required": [key], "additionalProperties": false});
    Schemas::new([(v2(1), body)])
}

fn aggregate(required: &[&str]) -> Value {
    let mut zone = name();
    zone["type"] = json!(["string", "null"]);
    json!({
        "type": "object",
        "properties": {"name": name(), "availability_zone": zone},
        "required": required,
        "additionalProperties": false,
        "minProperties": 1,
    })
}

fn host() -> Value {
    json!({"type": "object", "properties": {"host": fqdn()}, "required": ["host"], "additionalProperties": false})
}

pub(crate) static CREATE: LazyLock<Schemas> = LazyLock::new(|| body("aggregate", &aggregate(&["name"])));

pub(crate) static UPDATE: LazyLock<Schemas> = LazyLock::new(|| body("aggregate", &aggregate(&[])));

pub(crate) static ADD_HOST: LazyLock<Schemas> = LazyLock::new(|| body("add_host", &host()));

pub(crate) static REMOVE_HOST: LazyLock<Schemas> = LazyLock::new(|| body("remove_host", &host()));

pub(crate) static SET_METADATA: LazyLock<Schemas> = LazyLock::new(|| {
    let metadata = json!({
        "type": "object",
        "patternProperties": {"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": ["string", "null"], "maxLength": 255}},
        "additionalProperties": false,
    });
    let arguments =
        json!({"type": "object", "properties": {"metadata": metadata}, "required": ["metadata"], "additionalProperties": false});
    body("set_metadata", &arguments)
});

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        for schemas in [&super::CREATE, &super::UPDATE, &super::ADD_HOST, &super::REMOVE_HOST, &super::SET_METADATA] {
            std::sync::LazyLock::force(schemas);
        }
    }
}
