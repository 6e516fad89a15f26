//! `openstack`, without credentials.

use drover_testkit::{Disk, GuestSpec, wait_for};
use serde_json::{Value, json};

use crate::client::Client;
use crate::cloud::{Cloud, SOON};
use crate::vm::Vm;

/// Slow enough that a client, which takes seconds to start, still finds the copy under way.
const SLOW_MIB_S: u32 = 2;

fn cloud() -> (Cloud, Client) {
    let cloud = Cloud::new();
    let client = Client::noauth(cloud.api.base());
    (cloud, client)
}

/// What `server migration list` says of the guest, newest first.
fn migrations(client: &Client, vm: &Vm<'_>) -> Vec<Value> {
    let listed = client.openstack_json(&["server", "migration", "list", "--server", vm.name()]);
    listed.as_array().expect("a list").clone()
}

/// The number of the guest's migration, which `openstack` sees running.
fn running(client: &Client, vm: &Vm<'_>) -> String {
    vm.copying();
    let listed = migrations(client, vm);
    assert_eq!((listed.len(), &listed[0]["Status"]), (1, &json!("running")), "{listed:#?}");
    listed[0]["Id"].to_string()
}

#[test]
fn a_guest_moves_there_and_back_and_leaves_its_record() {
    let (cloud, client) = cloud();
    let vm = cloud.boot(&GuestSpec { disk: Disk::Shared, ..GuestSpec::new("pet", "h1") });
    let live = ["server", "migrate", "--live-migration", "--wait"];
    let printed = client.openstack(&[&live[..], &["--host", "h2", "pet"]].concat());
    assert!(printed.contains("Complete"), "{printed}");
    vm.assert_on("h2", "ACTIVE");
    client.openstack(&[&live[..], &["--shared-migration", "pet"]].concat());
    let host = vm.host();
    assert_ne!(host, "h2");
    vm.assert_on(&host, "ACTIVE");
    vm.assert_unharmed();

    let listed = migrations(&client, &vm);
    let row = |m: &Value| [&m["Source Compute"], &m["Dest Compute"], &m["Status"], &m["Type"], &m["Server UUID"]].map(Value::clone);
    let expected = [json!(host), json!("h2")].map(|to| {
        let from = if to == "h2" { json!("h1") } else { json!("h2") };
        [from, to, json!("completed"), json!("live-migration"), json!(vm.id())]
    });
    assert_eq!(listed.iter().map(row).collect::<Vec<_>>(), expected);

    let events = client.openstack_json(&["server", "event", "list", "pet"]);
    assert_eq!(events.as_array().map(Vec::len), Some(2), "{events:#}");
    assert_eq!(events[0]["Action"], "live-migration", "{events:#}");
    let request = events[0]["Request ID"].as_str().expect("a request id");
    let shown = client.openstack_json(&["server", "event", "show", "pet", request]);
    assert_eq!((&shown["action"], &shown["message"]), (&json!("live-migration"), &Value::Null), "{shown:#}");
    let steps = shown["events"].as_array().expect("events");
    assert!(steps.len() >= 4 && steps.iter().all(|step| step["result"] == "Success"), "{shown:#}");
}

#[test]
fn a_local_disk_is_copied_or_the_reason_is_printed() {
    let (cloud, client) = cloud();
    let vm = cloud.boot(&GuestSpec { disk: Disk::Local, ..GuestSpec::new("local", "h1") });
    let live = ["server", "migrate", "--live-migration", "--wait", "--host"];
    let said = client.openstack_refused(&[&live[..], &["h2", "--shared-migration", "local"]].concat());
    assert!(said.contains("is not on shared storage"), "{said}");
    let said = client.openstack_refused(&[&live[..], &["nowhere", "local"]].concat());
    assert!(said.contains("Compute host nowhere could not be found."), "{said}");
    let said = client.openstack_refused(&[&live[..], &["h1", "local"]].concat());
    assert!(said.contains("Unable to migrate instance"), "{said}");
    vm.assert_on("h1", "ACTIVE");
    client.openstack(&[&live[..], &["h2", "--block-migration", "local"]].concat());
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn a_running_migration_is_shown_and_aborted() {
    let (cloud, client) = cloud();
    cloud.cap_bandwidth("h1", SLOW_MIB_S);
    let vm = cloud.boot_on_h1("turns-back");
    client.openstack(&["server", "migrate", "--live-migration", "--host", "h2", "turns-back"]);
    let id = running(&client, &vm);
    let uuid = vm.migration()["uuid"].as_str().expect("a uuid").to_owned();
    let shown = client.openstack_json(&["server", "migration", "show", "turns-back", &uuid]);
    let seen = [&shown["Status"], &shown["Source Compute"], &shown["Dest Compute"]];
    assert_eq!(seen, ["running", "h1", "h2"], "{shown:#}");
    client.openstack(&["server", "migration", "abort", "turns-back", &id]);
    vm.ended("cancelled", SOON);
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn a_running_migration_is_forced_to_its_end() {
    let (cloud, client) = cloud();
    cloud.cap_bandwidth("h1", SLOW_MIB_S);
    let vm = cloud.boot_on_h1("forced");
    client.openstack(&["server", "migrate", "--live-migration", "--host", "h2", "forced"]);
    let id = running(&client, &vm);
    client.openstack(&["server", "migration", "force", "complete", "forced", &id]);
    wait_for("the guest to be paused", SOON, || {
        vm.guest().state_on(&cloud.host("h1")).is_ok_and(|s| s.as_deref() != Some("running"))
    })
    .expect("paused");
    vm.ended("completed", SOON * 3);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn servers_are_listed_and_shown() {
    let (cloud, client) = cloud();
    let (one, two) = (cloud.boot_on_h1("one"), cloud.boot(&GuestSpec::new("two", "h2")));
    let names = |arguments: &[&str]| {
        let listed = client.openstack_json(&[&["server", "list"], arguments].concat());
        let mut names: Vec<String> =
            listed.as_array().expect("a list").iter().map(|s| s["Name"].as_str().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&[]), ["one", "two"]);
    assert_eq!(names(&["--all-projects", "--host", "h2"]), ["two"]);
    assert_eq!(names(&["--name", "on", "--status", "ACTIVE", "--long"]), ["one"]);
    assert_eq!(names(&["--status", "PAUSED"]), [""; 0]);
    assert_eq!(names(&["--limit", "1"]).len(), 1);
    for (vm, host) in [(&one, "h1"), (&two, "h2")] {
        for name_or_id in [vm.name(), vm.id()] {
            let shown = client.openstack_json(&["server", "show", name_or_id]);
            let seen = [&shown["id"], &shown["name"], &shown["OS-EXT-SRV-ATTR:host"], &shown["status"]];
            assert_eq!(seen, [vm.id(), vm.name(), host, "ACTIVE"], "{shown:#}");
        }
    }
    let said = client.openstack_refused(&["server", "show", "three"]);
    assert!(said.contains("No Server found for three"), "{said}");
}

#[test]
fn a_service_is_disabled_and_declared_down() {
    let (cloud, client) = cloud();
    let set = |arguments: &[&str]| client.openstack(&[&["compute", "service", "set"], arguments, &["h3", "nova-compute"]].concat());
    let service = || {
        let listed = client.openstack_json(&["compute", "service", "list", "--long", "--host", "h3", "--service", "nova-compute"]);
        let row = &listed[0];
        [&row["Status"], &row["State"], &row["Disabled Reason"], &row["Forced Down"]].map(Value::clone)
    };
    let services = client.openstack_json(&["compute", "service", "list"]);
    assert_eq!(services.as_array().map(Vec::len), Some(usize::from(crate::cloud::HOSTS) + 1), "{services:#}");
    set(&["--disable", "--disable-reason", "maintenance"]);
    assert_eq!(service(), [json!("disabled"), json!("up"), json!("maintenance"), json!(false)]);
    let vm = cloud.boot(&GuestSpec::new("leaves", "h2"));
    client.openstack(&["server", "migrate", "--live-migration", "--wait", "leaves"]);
    vm.assert_on("h1", "ACTIVE");
    set(&["--enable"]);
    set(&["--down"]);
    assert_eq!(service(), [json!("enabled"), json!("down"), Value::Null, json!(true)]);
    let said = client.openstack_refused(&["server", "migrate", "--live-migration", "--wait", "--host", "h3", "leaves"]);
    assert!(said.contains("h3 is unavailable at this time"), "{said}");
    set(&["--up"]);
    assert_eq!(service(), [json!("enabled"), json!("up"), Value::Null, json!(false)]);
}

#[test]
fn hypervisors_are_listed() {
    let (_cloud, client) = cloud();
    let listed = client.openstack_json(&["hypervisor", "list"]);
    let row = |h: &Value| (h["Hypervisor Hostname"].clone(), h["Hypervisor Type"].clone(), h["State"].clone());
    let mut seen: Vec<_> = listed.as_array().expect("a list").iter().map(row).collect();
    seen.sort_by_key(|(name, ..)| name.to_string());
    assert_eq!(seen, ["h1", "h2", "h3"].map(|h| (json!(h), json!("QEMU"), json!("up"))));
    let matching = client.openstack_json(&["hypervisor", "list", "--matching", "h2"]);
    assert_eq!((matching.as_array().map(Vec::len), &matching[0]["Hypervisor Hostname"]), (Some(1), &json!("h2")), "{matching:#}");
}

#[test]
fn a_server_is_paused_stopped_started_rebooted_and_deleted() {
    let (cloud, client) = cloud();
    cloud.set_option("compute-h1", "DEFAULT__SHUTDOWN_TIMEOUT", "2");
    let vm = cloud.boot_on_h1("worked");
    let becomes = |status: &str| {
        vm.settled(SOON);
        assert_eq!(vm.server()["status"], status);
        assert_eq!(client.openstack_json(&["server", "show", "worked"])["status"], status);
    };
    for (verb, status) in [("pause", "PAUSED"), ("unpause", "ACTIVE"), ("stop", "SHUTOFF"), ("start", "ACTIVE")] {
        client.openstack(&["server", verb, "worked"]);
        becomes(status);
    }
    for kind in ["--soft", "--hard"] {
        let printed = client.openstack(&["server", "reboot", kind, "--wait", "worked"]);
        assert!(printed.contains("Complete"), "{printed}");
        becomes("ACTIVE");
    }
    let said = client.openstack_refused(&["server", "start", "worked"]);
    assert!(said.contains("Cannot 'start' instance") && said.contains("while it is in vm_state active"), "{said}");
    let events = client.openstack_json(&["server", "event", "list", "worked"]);
    let names: Vec<&Value> = events.as_array().expect("a list").iter().map(|event| &event["Action"]).collect();
    assert_eq!(names, ["reboot", "reboot", "start", "stop", "unpause", "pause"], "{events:#}");
    client.openstack(&["server", "delete", "--wait", "worked"]);
    let said = client.openstack_refused(&["server", "show", "worked"]);
    assert!(said.contains("No Server found for worked"), "{said}");
    assert_eq!(vm.guest().state_on(&cloud.host("h1")).expect("domstate"), None);
}

#[test]
fn a_key_pair_is_kept_and_forgotten() {
    let (_cloud, client) = cloud();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOWKDiUe3e/7tIR1ANtvGXP6v94+PEB09ZDcVG7HZ64v alice";
    let file = crate::service::scratch("key.pub");
    std::fs::write(&file, key).expect("a file");
    let path = file.to_str().expect("a path");
    let made = client.openstack_json(&["keypair", "create", "--public-key", path, "work"]);
    let fingerprint = json!("f3:b7:74:27:77:a2:12:73:8f:fe:cb:15:d7:da:6e:70");
    assert_eq!((&made["name"], &made["fingerprint"]), (&json!("work"), &fingerprint), "{made:#}");
    let listed = client.openstack_json(&["keypair", "list"]);
    assert_eq!((&listed[0]["Name"], &listed[0]["Fingerprint"], &listed[0]["Type"]), (&json!("work"), &fingerprint, &json!("ssh")));
    assert_eq!(client.openstack(&["keypair", "show", "--public-key", "work"]).trim(), key);
    client.openstack(&["keypair", "delete", "work"]);
    assert_eq!(client.openstack_json(&["keypair", "list"]), json!([]));
}
