//! openstacksdk's proxies; what they do is written in Python, beside this file.

use serde_json::json;

use crate::client::Client;
use crate::cloud::{Cloud, SOON};

#[test]
fn a_guest_moves_and_the_record_says_so() {
    let cloud = Cloud::new();
    let client = Client::noauth(cloud.api.base());
    let vm = cloud.boot_on_h1("sdk");
    let seen = client.python(include_str!("sdk.py"), &[vm.id(), "h2"]);
    let last = vm.host();
    assert_ne!(last, "h2");
    vm.assert_on(&last, "ACTIVE");
    vm.assert_unharmed();
    let expected = json!({
        "name": "sdk",
        "first": "h1",
        "second": "h2",
        "third": last,
        "migrations": [["h2", last, "completed"], ["h1", "h2", "completed"]],
        "in_progress": [],
        "actions": ["live-migration", "live-migration"],
        "servers": ["sdk"],
        "services": [["h1", "nova-compute", "up"], ["h2", "nova-compute", "up"], ["h3", "nova-compute", "up"]],
        "hypervisors": [["h1", "up"], ["h2", "up"], ["h3", "up"]],
    });
    assert_eq!(seen, expected);
}

#[test]
fn a_running_migration_is_aborted() {
    let cloud = Cloud::new();
    let client = Client::noauth(cloud.api.base());
    cloud.cap_bandwidth("h1", 2);
    let vm = cloud.boot_on_h1("sdk-abort");
    vm.start_migration(Some("h2"));
    vm.copying();
    let aborted = client.python(include_str!("sdk_abort.py"), &[vm.id()]);
    assert_eq!(aborted, json!({"status": "running", "source": "h1", "dest": "h2"}));
    vm.ended("cancelled", SOON);
    vm.assert_on("h1", "ACTIVE");
}

#[test]
fn a_running_migration_is_forced_to_its_end() {
    let cloud = Cloud::new();
    let client = Client::noauth(cloud.api.base());
    cloud.cap_bandwidth("h1", 2);
    let vm = cloud.boot_on_h1("sdk-forced");
    vm.start_migration(Some("h2"));
    vm.copying();
    let forced = client.python(include_str!("sdk_force_complete.py"), &[vm.id()]);
    assert_eq!(forced, json!({"status": "running", "source": "h1", "dest": "h2"}));
    vm.ended("completed", SOON * 3);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn services_aggregates_and_server_groups_are_administered() {
    let cloud = Cloud::new();
    let client = Client::noauth(cloud.api.base());
    let seen = client.python(include_str!("sdk_administration.py"), &["h3"]);
    let expected = json!({
        "disabled": ["disabled", "maintenance"],
        "enabled": "enabled",
        "forced_down": ["down", true],
        "back": "up",
        "aggregate": [["sdk", "west", ["h3"]]],
        "zones": ["nova", "west"],
        "group": [["sdk", "soft-affinity"]],
        "left": [0, 0],
    });
    assert_eq!(seen, expected);
}
