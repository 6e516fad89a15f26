//! Every error that the prechecks can have, produced for real: the caller hears why, nothing has changed, the guest never noticed.

use drover_testkit::{Answer, Disk, GuestSpec, HostKind, LATEST, wait_for};
use serde_json::{Value, json};

use crate::cloud::{Cloud, SOON};
use crate::vm::Vm;

/// Asks synchronously (2.30) for a move to `host`.
pub(crate) fn ask(vm: &Vm<'_>, host: impl Into<Value>) -> Answer {
    vm.act("2.30", &json!({"host": host.into(), "block_migration": "auto"}))
}

/// 400 with this text in it; the server is as it was, its migration is `error` and says why.
pub(crate) fn assert_refused(vm: &Vm<'_>, answer: &Answer, text: &str) {
    assert_eq!(answer.status, 400, "{}", answer.message());
    assert!(answer.message().contains(text), "{}", answer.message());
    let migration = vm.ended("error", SOON);
    assert_eq!(migration["fault"]["message"], answer.message(), "{migration:#}");
    let action = vm.action();
    assert_eq!(action["message"], "Error", "{action:#}");
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn the_same_host() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("same-host");
    let text = format!("Unable to migrate instance ({}) to current host (h1).", vm.id());
    assert_refused(&vm, &ask(&vm, "h1"), &text);
}

#[test]
fn an_unknown_host_leaves_no_trace() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("unknown-host");
    for microversion in ["2.30", "2.68"] {
        let answer = vm.act(microversion, &json!({"host": "nope", "block_migration": "auto"}));
        assert_eq!((answer.status, answer.message()), (400, "Compute host nope could not be found."), "{microversion}");
        assert_eq!(vm.server()["OS-EXT-STS:task_state"], Value::Null);
        assert_eq!(vm.migration(), Value::Null);
    }
}

#[test]
fn a_host_whose_agent_is_gone() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("agent-gone");
    cloud.kill("compute-h2");
    assert_refused(&vm, &ask(&vm, "h2"), "Compute service of h2 is unavailable at this time.");
}

#[test]
fn a_host_that_is_forced_down_and_a_source_that_is() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("forced-down");
    for host in ["h2", "h1"] {
        set_forced_down(&cloud, host, true);
        let answer = ask(&vm, "h2");
        set_forced_down(&cloud, host, false);
        let text = format!("Compute service of {host} is unavailable at this time. It is forced down.");
        assert_refused(&vm, &answer, &text);
    }
}

fn set_forced_down(cloud: &Cloud, host: &str, down: bool) {
    let listed = cloud.api.get("2.69", &format!("/v2.1/os-services?host={host}&binary=nova-compute"));
    let id = listed.body["services"][0]["id"].as_str().expect("the service's id").to_owned();
    let answer = cloud.api.put("2.69", &format!("/v2.1/os-services/{id}"), &json!({"forced_down": down}));
    assert_eq!(answer.status, 200, "{}", answer.message());
}

#[test]
fn a_disabled_host_is_passed_by_with_the_operators_reason() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("disabled");
    let set = |host: &str, body: Value| {
        let listed = cloud.api.get("2.69", &format!("/v2.1/os-services?host={host}&binary=nova-compute"));
        let id = listed.body["services"][0]["id"].as_str().expect("the service's id").to_owned();
        assert_eq!(cloud.api.put("2.69", &format!("/v2.1/os-services/{id}"), &body).status, 200);
    };
    for host in ["h2", "h3"] {
        set(host, json!({"status": "disabled", "disabled_reason": "new memory tonight"}));
    }
    let answer = ask(&vm, Value::Null);
    for host in ["h2", "h3"] {
        set(host, json!({"status": "enabled"}));
    }
    assert_refused(&vm, &answer, "No valid host was found. There are not enough hosts available.");
    for host in ["h2", "h3"] {
        let text = format!("{host}: Migration pre-check error: compute service of {host} is disabled: new memory tonight");
        assert!(answer.message().contains(&text), "{}", answer.message());
    }
}

#[test]
fn a_host_with_too_little_memory() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("small");
    // A definition is a promise: a guest that is shut off may be started any time.
    let mib = host_memory_mib(&cloud) - 100;
    let xml = format!(
        "<domain type='qemu'><name>giant</name><memory unit='MiB'>{mib}</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os></domain>"
    );
    let h2 = cloud.host("h2");
    let path = h2.outside_path("/run/giant.xml".as_ref()).expect("a path");
    std::fs::write(path, xml).expect("the definition is written");
    h2.virsh(["define", "/run/giant.xml"]).expect("virsh define");
    wait_for("the giant to be known", SOON, || cloud.api.get(LATEST, "/v2.1/servers?name=giant").body["servers"][0].is_object())
        .expect("known");
    let answer = ask(&vm, "h2");
    h2.virsh(["undefine", "giant"]).expect("virsh undefine");
    assert_refused(&vm, &answer, &format!("Migration pre-check error: Unable to migrate {} to h2: Lack of memory(host:", vm.id()));
}

fn host_memory_mib(cloud: &Cloud) -> i64 {
    let listed = cloud.api.get("2.53", "/v2.1/os-hypervisors/detail");
    listed.body["hypervisors"][0]["memory_mb"].as_i64().expect("memory_mb")
}

#[test]
fn a_server_that_is_not_there_or_not_running() {
    let cloud = Cloud::new();
    let unknown = "00000000-0000-4000-8000-000000000000";
    let body = json!({"os-migrateLive": {"host": null, "block_migration": "auto"}});
    let answer = cloud.api.post("2.30", &format!("/v2.1/servers/{unknown}/action"), &body);
    assert_eq!((answer.status, answer.message()), (404, format!("Instance {unknown} could not be found.").as_str()));
    let vm = cloud.boot_on_h1("off");
    cloud.host("h1").virsh(["destroy", vm.name()]).expect("virsh destroy");
    wait_for("the server to show SHUTOFF", SOON, || vm.server()["status"] == "SHUTOFF").expect("shut off");
    let answer = ask(&vm, "h2");
    let text = format!("Cannot 'os-migrateLive' instance {} while it is in vm_state stopped", vm.id());
    assert_eq!((answer.status, answer.message()), (409, text.as_str()));
    assert_eq!(vm.migration(), Value::Null);
}

#[test]
fn a_second_migration_while_one_is_under_way() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("busy");
    cloud.cap_bandwidth("h1", 8);
    vm.start_migration(Some("h2"));
    let answer = vm.migrate(Some("h3"));
    let text = format!("Cannot 'os-migrateLive' instance {} while it is in task_state migrating", vm.id());
    assert_eq!(answer.status, 409, "{}", answer.message());
    assert!(answer.message().starts_with(&text), "{}", answer.message());
    vm.ended("completed", SOON);
    vm.assert_on("h2", "ACTIVE");
}

#[test]
fn of_twenty_requests_at_once_one_is_accepted() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("crowd");
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(|| vm.migrate(Some("h2")))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a request")).collect()
    });
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(202), count(409)), (1, 19), "{answers:?}");
    vm.ended("completed", SOON);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn shared_storage_asked_for_where_there_is_none() {
    let cloud = Cloud::new();
    let vm = cloud.boot(&GuestSpec { disk: Disk::Local, ..GuestSpec::new("not-shared", "h1") });
    let answer = vm.act("2.30", &json!({"host": "h2", "block_migration": false}));
    assert_refused(&vm, &answer, "h1 is not on shared storage: Shared storage live-migration requires either shared storage");
}

#[test]
fn block_migration_asked_for_on_shared_storage() {
    let cloud = Cloud::new();
    let vm = cloud.boot(&GuestSpec { disk: Disk::Shared, ..GuestSpec::new("shared", "h1") });
    let answer = vm.act("2.30", &json!({"host": "h2", "block_migration": true}));
    assert_refused(&vm, &answer, "h1 is not on local storage: Block migration can not be used with shared storage.");
}

#[test]
fn another_hypervisor() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("other-hypervisor");
    // libvirt's test driver comes with a guest that is larger than its host, and memory is looked at before the type.
    cloud.set_option("conductor-1", "DEFAULT__RAM_ALLOCATION_RATIO", "16");
    let test_driver = cloud.bench.add_host(HostKind::Bare).expect("a host on libvirt's test driver").name();
    let answer = ask(&vm, test_driver.as_str());
    assert_refused(&vm, &answer, "The supplied hypervisor type of is invalid.");
}

#[test]
fn an_older_hypervisor_and_a_machine_type_and_a_cpu_that_it_does_not_know() {
    let cloud = Cloud::new();
    let older = cloud.bench.add_host(HostKind::Older).expect("a host with an older libvirt and QEMU").name();
    let vm = cloud.boot_on_h1("too-old");
    assert_refused(&vm, &ask(&vm, older.as_str()), "The instance requires a newer hypervisor version than has been provided.");
    // Without the check of versions, the destination's libvirt itself says what it cannot do.
    cloud.set_option("conductor-1", "WORKAROUNDS__SKIP_HYPERVISOR_VERSION_CHECK_ON_LM", "true");
    let machine = cloud.boot(&GuestSpec { machine: "pc-i440fx-10.0".to_owned(), ..GuestSpec::new("new-machine", "h1") });
    let answer = ask(&machine, older.as_str());
    assert_refused(&machine, &answer, "The instance requires a newer hypervisor version than has been provided.");
    assert!(answer.message().contains("pc-i440fx-10.0"), "{}", answer.message());
    let cpu = cloud.boot(&GuestSpec { cpu: "Westmere-v1".to_owned(), ..GuestSpec::new("new-cpu", "h1") });
    let answer = ask(&cpu, older.as_str());
    assert_refused(&cpu, &answer, "Unacceptable CPU info:");
    assert!(answer.message().contains("Westmere-v1"), "{}", answer.message());
    // And a guest that it can run goes there.
    let answer = ask(&vm, older.as_str());
    assert_eq!(answer.status, 202, "{}", answer.message());
    vm.ended("completed", SOON);
    vm.assert_on(&older, "ACTIVE");
    vm.assert_unharmed();
}
