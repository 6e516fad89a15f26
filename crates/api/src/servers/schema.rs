//! The queries of `/servers` and `/servers/detail`.
//!
//! Filters of Nova's that are not built are unknown here: left out silently before 2.75, refused from then on, never ignored
//! while the caller believes in them.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::microversion::v2;
use crate::validation::Schemas;
use crate::validation::types::{common, date_time, multi, non_negative_integer, regex};

/// Names of joined tables, which are no filters: they pass the schema, to be refused by name.
pub(super) const JOINED_TABLES: [&str; 7] =
    ["block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices"];

pub(super) static LIST: LazyLock<Schemas> = LazyLock::new(|| {
    let mut properties = json!({
        "all_tenants": common(),
        "project_id": common(),
        "tenant_id": common(),
        "name": regex(),
        "display_name": regex(),
        "status": common(),
        "host": common(),
        "uuid": common(),
        "vm_state": common(),
        "task_state": common(),
        "deleted": common(),
        "changes-since": multi(&date_time()),
        "limit": multi(&non_negative_integer()),
        "marker": common(),
    });
    for table in JOINED_TABLES {
        properties[table] = common();
    }
    let object = |properties: &Value, open: bool| {
        json!({
            "type": "object",
            "properties": properties,
            "patternProperties": {"^_": common()},
            "additionalProperties": open,
        })
    };
    let since_2_1 = object(&properties, true);
    properties["changes-before"] = multi(&date_time());
    Schemas::new([(v2(1), since_2_1), (v2(66), object(&properties, true)), (v2(75), object(&properties, false))])
});

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::LIST);
    }
}
