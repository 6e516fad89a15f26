//! The queries of `/servers` and `/servers/detail` (`nova/api/openstack/compute/schemas/servers.py`): which parameters there are,
//! from which version on. Unknown ones are left out silently before 2.75 and refused from then on.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::microversion::v2;
use crate::validation::Schemas;
use crate::validation::types::{common, date_time, multi, non_negative_integer, regex};

/// Names of joined tables, which are no filters: they pass the schema, to be refused by name.
pub(super) const JOINED_TABLES: [&str; 7] =
    ["block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices"];

/// Parameters of any text, in all versions.
const TEXTS: [&str; 31] = [
    "all_tenants",
    "availability_zone",
    "config_drive",
    "created_at",
    "deleted",
    "description",
    "flavor",
    "host",
    "image",
    "instance_name",
    "kernel_id",
    "key_name",
    "launch_index",
    "launched_at",
    "locked_by",
    "marker",
    "power_state",
    "progress",
    "project_id",
    "ramdisk_id",
    "reservation_id",
    "root_device_name",
    "soft_deleted",
    "sort_dir",
    "status",
    "task_state",
    "tenant_id",
    "terminated_at",
    "user_id",
    "uuid",
    "vm_state",
];

/// Parameters that are regular expressions, in all versions.
const REGEXES: [&str; 9] =
    ["access_ip_v4", "access_ip_v6", "auto_disk_config", "display_name", "hostname", "ip", "ip6", "name", "node"];

/// What can be sorted by (Nova's keys; what they mean here: `sort.rs`).
const SORT_KEYS: [&str; 29] = [
    "access_ip_v4",
    "access_ip_v6",
    "auto_disk_config",
    "availability_zone",
    "config_drive",
    "created_at",
    "display_description",
    "display_name",
    "host",
    "hostname",
    "image_ref",
    "instance_type_id",
    "kernel_id",
    "key_name",
    "launch_index",
    "launched_at",
    "locked_by",
    "node",
    "power_state",
    "progress",
    "project_id",
    "ramdisk_id",
    "root_device_name",
    "task_state",
    "terminated_at",
    "updated_at",
    "user_id",
    "uuid",
    "vm_state",
];

/// Columns of Nova's database that were taken as keys before 2.75, and ignored.
pub(super) const IGNORED_SORT_KEYS: [&str; 9] = [
    "architecture",
    "cell_name",
    "cleaned",
    "default_ephemeral_device",
    "default_swap_device",
    "deleted",
    "ephemeral_gb",
    "memory_mb",
    "vcpus",
];

pub(crate) static LIST: LazyLock<Schemas> = LazyLock::new(|| {
    let mut properties = json!({
        "changes-since": multi(&date_time()),
        "limit": multi(&non_negative_integer()),
        "sort_key": sort_key(&[], &IGNORED_SORT_KEYS),
    });
    for name in TEXTS.into_iter().chain(JOINED_TABLES) {
        properties[name] = common();
    }
    for name in REGEXES {
        properties[name] = regex();
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
    for name in ["tags", "tags-any", "not-tags", "not-tags-any"] {
        properties[name] = common();
    }
    let since_2_26 = object(&properties, true);
    properties["changes-before"] = multi(&date_time());
    let since_2_66 = object(&properties, true);
    properties["locked"] = common();
    properties["sort_key"] = sort_key(&["locked"], &IGNORED_SORT_KEYS);
    let since_2_73 = object(&properties, true);
    properties["sort_key"] = sort_key(&["locked"], &[]);
    let since_2_75 = object(&properties, false);
    Schemas::new([(v2(1), since_2_1), (v2(26), since_2_26), (v2(66), since_2_66), (v2(73), since_2_73), (v2(75), since_2_75)])
});

fn sort_key(more: &[&str], ignored: &[&str]) -> Value {
    let keys: Vec<&str> = SORT_KEYS.iter().chain(more).chain(ignored).copied().collect();
    multi(&json!({"type": "string", "enum": keys}))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::LIST);
    }
}
