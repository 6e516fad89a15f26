//! What operators set beside moving guests: locks, states, aggregates, zones, server groups, and what they look up about hosts.

use serde_json::{Value, json};

use crate::client::Client;
use crate::cloud::Cloud;

fn cloud() -> (Cloud, Client) {
    let cloud = Cloud::new();
    let client = Client::noauth(cloud.api.base());
    (cloud, client)
}

/// One column of what a list command prints, in order of its text.
fn column(listed: &Value, name: &str) -> Vec<String> {
    let mut cells: Vec<String> =
        listed.as_array().expect("a list").iter().map(|row| row[name].as_str().unwrap_or_default().to_owned()).collect();
    cells.sort();
    cells
}

#[test]
fn a_server_is_locked_with_a_reason_and_its_state_is_set() {
    let (cloud, client) = cloud();
    let vm = cloud.boot_on_h1("pinned");
    client.openstack(&["--os-compute-api-version", "2.73", "server", "lock", "--reason", "audit", "pinned"]);
    let server = vm.server();
    assert_eq!((&server["locked"], &server["locked_reason"]), (&json!(true), &json!("audit")), "{server:#}");
    client.openstack(&["server", "unlock", "pinned"]);
    assert_eq!(vm.server()["locked"], false);
    client.openstack(&["server", "set", "--auto-approve", "--state", "error", "pinned"]);
    assert_eq!(vm.server()["status"], "ERROR");
    client.openstack(&["server", "set", "--auto-approve", "--state", "active", "pinned"]);
    vm.assert_on("h1", "ACTIVE");
    client.openstack(&["server", "set", "--property", "rack=7", "pinned"]);
    assert_eq!(vm.server()["metadata"], json!({"rack": "7"}));
    client.openstack(&["server", "unset", "--property", "rack", "pinned"]);
    assert_eq!(vm.server()["metadata"], json!({}));
    vm.assert_unharmed();
}

#[test]
fn an_aggregate_makes_an_availability_zone_and_is_taken_down_again() {
    let (_cloud, client) = cloud();
    let made = client.openstack_json(&["aggregate", "create", "--zone", "east", "--property", "ssd=true", "rack-1"]);
    assert_eq!((&made["name"], &made["availability_zone"]), (&json!("rack-1"), &json!("east")), "{made:#}");
    client.openstack(&["aggregate", "add", "host", "rack-1", "h2"]);
    client.openstack(&["aggregate", "set", "--property", "power=a", "rack-1"]);
    let shown = client.openstack_json(&["aggregate", "show", "rack-1"]);
    assert_eq!(shown["hosts"], json!(["h2"]), "{shown:#}");
    let zones = || column(&client.openstack_json(&["availability", "zone", "list", "--compute"]), "Zone Name");
    assert_eq!(zones(), ["east", "internal", "nova"]);
    let said = client.openstack_refused(&["aggregate", "add", "host", "rack-1", "nowhere"]);
    assert!(said.contains("Compute host nowhere could not be found"), "{said}");
    let said = client.openstack_refused(&["aggregate", "delete", "rack-1"]);
    assert!(said.contains("not empty"), "{said}");
    client.openstack(&["aggregate", "remove", "host", "rack-1", "h2"]);
    assert_eq!(zones(), ["internal", "nova"]);
    client.openstack(&["aggregate", "delete", "rack-1"]);
    assert_eq!(client.openstack_json(&["aggregate", "list"]), json!([]));
}

#[test]
fn a_server_group_is_made_shown_and_deleted() {
    let (_cloud, client) = cloud();
    let made = client.openstack_json(&[
        "--os-compute-api-version",
        "2.64",
        "server",
        "group",
        "create",
        "--policy",
        "anti-affinity",
        "apart",
    ]);
    assert_eq!((&made["name"], &made["policy"]), (&json!("apart"), &json!("anti-affinity")), "{made:#}");
    assert_eq!(column(&client.openstack_json(&["server", "group", "list"]), "Name"), ["apart"]);
    let shown = client.openstack_json(&["server", "group", "show", "apart"]);
    assert_eq!(shown["id"], made["id"], "{shown:#}");
    client.openstack(&["server", "group", "delete", "apart"]);
    assert_eq!(client.openstack_json(&["server", "group", "list"]), json!([]));
}

#[test]
fn a_hypervisor_is_shown_and_all_are_counted() {
    let (cloud, client) = cloud();
    let _vm = cloud.boot_on_h1("counted");
    let shown = client.openstack_json(&["--os-compute-api-version", "2.53", "hypervisor", "show", "h1"]);
    let seen = [&shown["hypervisor_hostname"], &shown["hypervisor_type"], &shown["state"], &shown["running_vms"]];
    assert_eq!(seen, [&json!("h1"), &json!("QEMU"), &json!("up"), &json!(1)], "{shown:#}");
    let stats = client.openstack_json(&["hypervisor", "stats", "show"]);
    assert_eq!((&stats["count"], &stats["running_vms"]), (&json!(3), &json!(1)), "{stats:#}");
    assert!(stats["memory_mb"].as_u64() > stats["memory_mb_used"].as_u64(), "{stats:#}");
}
