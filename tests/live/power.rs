//! Guests are paused, stopped, started, rebooted and deleted, and processes die meanwhile.
//!
//! The guests of the bench do not hear that they should shut down: they are ended when their time is up.

use std::path::Path;

use drover_testkit::{Disk, GuestSpec, wait_for};
use serde_json::{Value, json};

use crate::cloud::{Cloud, SOON};
use crate::faults::on_its_way;
use crate::vm::Vm;

/// Gives guests of h1 this long to shut down.
fn shutdown_timeout(cloud: &Cloud, seconds: u32) {
    cloud.set_option("compute-h1", "DEFAULT__SHUTDOWN_TIMEOUT", &seconds.to_string());
}

/// Asks for an action; it must be accepted.
fn act(vm: &Vm<'_>, body: &Value) {
    let answer = vm.action_of(body);
    assert_eq!((answer.status, &answer.body), (202, &Value::Null), "{body}: {}", answer.message());
}

fn delete(cloud: &Cloud, vm: &Vm<'_>) {
    let answer = cloud.api.delete("2.1", &format!("/v2.1/servers/{}", vm.id()));
    assert_eq!((answer.status, &answer.body), (204, &Value::Null), "{}", answer.message());
}

/// Waits until nothing is being done to the server, which is in this status then; libvirt has its guest in this state.
fn becomes(cloud: &Cloud, vm: &Vm<'_>, status: &str, domstate: &str) {
    vm.settled(SOON * 2);
    let server = vm.server();
    assert_eq!(server["status"], status, "{server:#}\n{:#}", vm.action());
    assert_eq!(vm.guest().state_on(&cloud.host("h1")).expect("domstate").as_deref(), Some(domstate));
}

/// Waits until the server does not exist any more, nor its domain.
fn is_gone(cloud: &Cloud, vm: &Vm<'_>) {
    wait_for("the server to be gone", SOON * 2, || cloud.api.get("2.1", &format!("/v2.1/servers/{}", vm.id())).status == 404)
        .unwrap_or_else(|e| panic!("{e}: {:#}", vm.server()));
    for host in cloud.bench.hosts().expect("hosts") {
        assert_eq!(vm.guest().state_on(&host).expect("domstate"), None, "on {}", host.name());
    }
}

/// The newest instance action is this one, and its one step came to this.
fn assert_action(vm: &Vm<'_>, name: &str, event: &str, result: &str) -> Value {
    let action = vm.action();
    let message = if result == "Error" { json!("Error") } else { Value::Null };
    assert_eq!((&action["action"], &action["message"]), (&json!(name), &message), "{action:#}");
    let events = action["events"].as_array().expect("events");
    assert_eq!(events.len(), 1, "{action:#}");
    assert_eq!((&events[0]["event"], &events[0]["result"]), (&json!(event), &json!(result)), "{action:#}");
    assert!(events[0]["finish_time"].is_string(), "{action:#}");
    action
}

/// How often the guest was started since it was first heard.
fn restarts(cloud: &Cloud, vm: &Vm<'_>) -> usize {
    cloud.watch.observed(vm.guest().address()).expect("the guest was heard").restarts()
}

/// Waits until it was started so often, and is heard.
fn restarted(cloud: &Cloud, vm: &Vm<'_>, times: usize) {
    wait_for("the guest to boot", SOON, || restarts(cloud, vm) == times).expect("booted");
}

#[test]
fn a_guest_is_paused_and_goes_on() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("pause");
    act(&vm, &json!({"pause": null}));
    becomes(&cloud, &vm, "PAUSED", "paused");
    assert_action(&vm, "pause", "compute_pause_instance", "Success");
    let refused = vm.action_of(&json!({"pause": null}));
    assert_eq!(refused.status, 409, "{}", refused.message());
    act(&vm, &json!({"unpause": null}));
    becomes(&cloud, &vm, "ACTIVE", "running");
    assert_action(&vm, "unpause", "compute_unpause_instance", "Success");
    vm.assert_unharmed();
}

#[test]
fn a_guest_is_stopped_and_started() {
    let cloud = Cloud::new();
    shutdown_timeout(&cloud, 3);
    let vm = cloud.boot_on_h1("stop");
    act(&vm, &json!({"os-stop": null}));
    let server = vm.server();
    assert_eq!((&server["status"], &server["OS-EXT-STS:task_state"]), (&json!("ACTIVE"), &json!("powering-off")));
    for body in [json!({"os-stop": null}), json!({"pause": null}), json!({"reboot": {"type": "HARD"}})] {
        assert_eq!(vm.action_of(&body).status, 409, "{body}");
    }
    assert_eq!(vm.migrate(None).status, 409);
    becomes(&cloud, &vm, "SHUTOFF", "shut off");
    assert_action(&vm, "stop", "compute_stop_instance", "Success");
    assert_eq!(vm.server()["OS-EXT-STS:power_state"], 4);
    act(&vm, &json!({"os-start": null}));
    becomes(&cloud, &vm, "ACTIVE", "running");
    assert_action(&vm, "start", "compute_start_instance", "Success");
    restarted(&cloud, &vm, 1);
    vm.start_migration(Some("h2"));
    vm.ended("completed", SOON);
    vm.assert_on("h2", "ACTIVE");
}

#[test]
fn a_guest_is_rebooted_hard_and_soft() {
    let cloud = Cloud::new();
    shutdown_timeout(&cloud, 3);
    let vm = cloud.boot_on_h1("reboot");
    for (times, (kind, status)) in [("HARD", "HARD_REBOOT"), ("SOFT", "REBOOT")].into_iter().enumerate() {
        act(&vm, &json!({"reboot": {"type": kind}}));
        if kind == "SOFT" {
            assert_eq!(vm.server()["status"], status);
        }
        becomes(&cloud, &vm, "ACTIVE", "running");
        assert_action(&vm, "reboot", "compute_reboot_instance", "Success");
        restarted(&cloud, &vm, times + 1);
    }
}

#[test]
fn a_server_is_deleted_and_its_disk_stays() {
    let cloud = Cloud::new();
    for (name, transient) in [("delete", false), ("delete-transient", true)] {
        let vm = cloud.boot(&GuestSpec { disk: Disk::Shared, transient, ..GuestSpec::new(name, "h1") });
        delete(&cloud, &vm);
        is_gone(&cloud, &vm);
        let disk = cloud.host("h1").outside_path(Path::new(&format!("/srv/shared/disks/{name}.qcow2"))).expect("a path");
        assert!(disk.exists(), "{} is not ours to remove", disk.display());
        assert_action(&vm, "delete", "compute_terminate_instance", "Success");
    }
}

#[test]
fn a_server_is_deleted_in_the_middle_of_its_migration() {
    let cloud = Cloud::new();
    let (vm, _) = on_its_way(&cloud, "delete-moving");
    for body in [json!({"pause": null}), json!({"os-stop": null}), json!({"reboot": {"type": "HARD"}})] {
        let refused = vm.action_of(&body);
        assert_eq!(refused.status, 409);
        assert!(refused.message().contains("while it is in task_state migrating: migration"), "{}", refused.message());
    }
    delete(&cloud, &vm);
    assert_eq!(vm.server()["OS-EXT-STS:task_state"], "deleting");
    is_gone(&cloud, &vm);
    let listed = cloud.api.get("2.59", &format!("/v2.1/os-migrations?instance_uuid={}", vm.id()));
    assert_eq!(listed.body["migrations"][0]["status"], "cancelled", "{:#}", listed.body);
    assert_action(&vm, "delete", "compute_terminate_instance", "Success");
}

/// A guest on h1 that is being stopped, its agent at work.
fn being_stopped<'a>(cloud: &'a Cloud, name: &str) -> Vm<'a> {
    shutdown_timeout(cloud, 8);
    let vm = cloud.boot_on_h1(name);
    act(&vm, &json!({"os-stop": null}));
    wait_for("the step to begin", SOON, || vm.action()["events"][0]["event"] == "compute_stop_instance").expect("begun");
    assert_eq!(vm.guest().state_on(&cloud.host("h1")).expect("domstate").as_deref(), Some("running"));
    vm
}

#[test]
fn the_agent_is_killed_in_the_middle_of_a_stop_and_comes_back() {
    let cloud = Cloud::new();
    let vm = being_stopped(&cloud, "stop-agent");
    cloud.kill("compute-h1");
    assert_eq!(vm.server()["OS-EXT-STS:task_state"], "powering-off");
    cloud.start("compute-h1");
    becomes(&cloud, &vm, "SHUTOFF", "shut off");
    assert_action(&vm, "stop", "compute_stop_instance", "Success");
}

#[test]
fn the_conductor_is_killed_in_the_middle_of_a_stop() {
    let cloud = Cloud::new();
    let vm = being_stopped(&cloud, "stop-conductor");
    cloud.kill("conductor-1");
    cloud.start("conductor-1");
    becomes(&cloud, &vm, "SHUTOFF", "shut off");
    assert_action(&vm, "stop", "compute_stop_instance", "Success");
}

#[test]
fn rabbitmq_is_restarted_in_the_middle_of_a_stop() {
    let cloud = Cloud::new();
    let vm = being_stopped(&cloud, "stop-rabbitmq");
    cloud.kill("rabbitmq");
    cloud.start("rabbitmq");
    becomes(&cloud, &vm, "SHUTOFF", "shut off");
    assert_action(&vm, "stop", "compute_stop_instance", "Success");
}

#[test]
fn a_host_that_stays_silent_ends_the_action_and_the_guest_is_left_alone() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("silent");
    cloud.kill("compute-h1");
    act(&vm, &json!({"os-stop": null}));
    becomes(&cloud, &vm, "ACTIVE", "running");
    let action = assert_action(&vm, "stop", "compute_stop_instance", "Error");
    let why = action["events"][0]["details"].as_str().unwrap_or_default();
    assert!(why.starts_with("Failed to power off instance: Compute service of h1 is unavailable"), "{why}");
    assert!(why.contains("is not known"), "{why}");
    cloud.start("compute-h1");
    act(&vm, &json!({"pause": null}));
    becomes(&cloud, &vm, "PAUSED", "paused");
    act(&vm, &json!({"unpause": null}));
    becomes(&cloud, &vm, "ACTIVE", "running");
    vm.assert_unharmed();
}
