//! `openstack` and `nova` as an admin, who logs in at Keystone and finds the API in its catalogue.

use drover_testkit::{GuestSpec, wait_for};

use super::Keystone;
use crate::cloud::{Cloud, SOON};

#[test]
fn an_admin_finds_the_api_and_moves_a_guest() {
    let cloud = Cloud::new();
    let keystone = Keystone::start(&cloud, &[]);
    let admin = keystone.client("admin", "admin");
    let vm = cloud.boot_on_h1("by-name");
    let printed = admin.openstack(&["server", "migrate", "--live-migration", "--host", "h2", "--wait", vm.id()]);
    assert!(printed.contains("Complete"), "{printed}");
    vm.assert_on("h2", "ACTIVE");
    let seen = admin.python(include_str!("../sdk.py"), &[vm.id(), "h1"]);
    assert_eq!((&seen["second"], &seen["third"]), (&"h1".into(), &vm.host().into()), "{seen:#}");
    vm.assert_unharmed();
}

#[test]
fn nova_moves_a_guest_and_empties_a_host() {
    let cloud = Cloud::new();
    let keystone = Keystone::start(&cloud, &[]);
    let admin = keystone.client("admin", "admin");
    let (one, two) = (cloud.boot_on_h1("one"), cloud.boot(&GuestSpec::new("two", "h2")));
    admin.nova(&["live-migration", one.id(), "h2"]);
    one.ended("completed", SOON);
    one.assert_on("h2", "ACTIVE");
    let printed = admin.nova(&["host-evacuate-live", "--target-host", "h3", "h2"]);
    for vm in [&one, &two] {
        assert!(printed.contains(vm.id()), "{printed}");
        vm.ended("completed", SOON);
        vm.assert_on("h3", "ACTIVE");
        vm.assert_unharmed();
    }
}

#[test]
fn nova_aborts_a_migration() {
    let cloud = Cloud::new();
    let keystone = Keystone::start(&cloud, &[]);
    let admin = keystone.client("admin", "admin");
    cloud.cap_bandwidth("h1", 2);
    let vm = cloud.boot_on_h1("nova-abort");
    admin.nova(&["live-migration", vm.id(), "h2"]);
    let id = vm.copying()["id"].to_string();
    let listed = admin.nova(&["server-migration-list", vm.id()]);
    assert!(listed.contains("running") && listed.contains("h2"), "{listed}");
    admin.nova(&["live-migration-abort", vm.id(), &id]);
    wait_for("the server to be free", SOON, || vm.server()["status"] == "ACTIVE").expect("free");
    vm.ended("cancelled", SOON);
    vm.assert_on("h1", "ACTIVE");
}
