//! The verdict table (`conductor/src/recovery/plan.rs`), row by row, as far as a row can be forced.
//!
//! libvirt's protocol ends with a call of the source's libvirtd to the destination's (Finish) and its answer. Dropping either on the
//! way, after the memory has arrived, brings about what is otherwise a matter of milliseconds: both copies stand, or both run.

use std::time::Duration;

use drover_testkit::{GuestSpec, wait_for};

use crate::cloud::{Cloud, SOON};
use crate::faults::kill;
use crate::vm::Vm;

/// libvirt gives a silent peer 25 to 30 s; what follows takes a few more.
const AFTER_LIBVIRTS_PATIENCE: Duration = Duration::from_secs(90);
/// Slow enough to cut the wire before the end.
const MIB_S: u32 = 16;

/// What is dropped between the two libvirtds.
enum Cut {
    /// The source's words: the destination's copy gets its state and is never told to run.
    Question,
    /// The destination's words: it runs, and the source is never told.
    Answer,
}

/// A guest on h1 on its way to h2, whose libvirtds stop hearing (one of) each other while the memory still flows.
fn cut_off<'a>(cloud: &'a Cloud, spec: &GuestSpec, cut: &Cut) -> Vm<'a> {
    cloud.cap_bandwidth("h1", MIB_S);
    let vm = cloud.boot(spec);
    vm.start_migration(Some("h2"));
    wait_for("the incoming QEMU", SOON, || cloud.host("h2").qemu_pid(vm.name()).is_ok_and(|pid| pid.is_some())).expect("incoming");
    vm.copying();
    let (host, rule) = match cut {
        Cut::Question => ("h1", "tcp dport 16509 drop"),
        Cut::Answer => ("h2", "tcp sport 16509 drop"),
    };
    let table = format!(
        "add table inet cut; add chain inet cut out {{ type filter hook output priority 0; }}; add rule inet cut out {rule}"
    );
    cloud.host(host).run("nft", [table.as_str()]).expect("nft");
    vm
}

/// The libvirtds hear each other again.
fn mend(cloud: &Cloud) {
    for host in ["h1", "h2"] {
        cloud.host(host).run("nft", ["flush ruleset"]).expect("nft");
    }
}

fn wait_for_state(cloud: &Cloud, vm: &Vm<'_>, host: &str, state: &str) {
    wait_for(&format!("the copy on {host} to be {state}"), AFTER_LIBVIRTS_PATIENCE, || {
        vm.guest().state_on(&cloud.host(host)).is_ok_and(|seen| seen.as_deref() == Some(state))
    })
    .unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
}

/// The source's libvirtd dies while it waits, and comes back: it leaves its copy standing.
fn restart_the_sources_libvirtd(cloud: &Cloud) {
    cloud.kill("libvirtd-h1");
    mend(cloud);
    cloud.start("libvirtd-h1");
}

/// The source's last words die with its libvirtd: the kernel would go on sending them, and the destination would hear them once the wire is mended.
fn kill_the_sources_libvirtd(cloud: &Cloud) {
    let h1 = cloud.host("h1");
    h1.run("sh", ["-c", "echo 1 >/proc/sys/net/ipv4/tcp_orphan_retries"]).expect("the kernel gives up early on h1");
    cloud.kill("libvirtd-h1");
    wait_for("the source's connection to be forgotten", AFTER_LIBVIRTS_PATIENCE, || {
        h1.run("ss", ["-Htn", "state", "all", "dport", "=", ":16509"]).is_ok_and(|sockets| !sockets.contains("16509"))
    })
    .expect("forgotten");
}

#[test]
fn source_stands_destination_runs_completed_and_the_sources_copy_is_destroyed() {
    let cloud = Cloud::new();
    let vm = cut_off(&cloud, &GuestSpec::new("stands-runs", "h1"), &Cut::Answer);
    wait_for_state(&cloud, &vm, "h2", "running");
    restart_the_sources_libvirtd(&cloud);
    vm.ended("completed", AFTER_LIBVIRTS_PATIENCE);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn source_stands_destination_gone_the_source_goes_on() {
    let cloud = Cloud::new();
    let vm = cut_off(&cloud, &GuestSpec::new("stands-gone", "h1"), &Cut::Question);
    wait_for_state(&cloud, &vm, "h1", "paused");
    cloud.kill("libvirtd-h1");
    kill(cloud.host("h2").qemu_pid(vm.name()).expect("pid files").expect("the copy on h2"));
    mend(&cloud);
    cloud.start("libvirtd-h1");
    vm.ended("failed", AFTER_LIBVIRTS_PATIENCE);
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn both_stand_the_destinations_is_destroyed_and_the_source_goes_on() {
    let cloud = Cloud::new();
    let vm = cut_off(&cloud, &GuestSpec::new("both-stand", "h1"), &Cut::Question);
    wait_for_state(&cloud, &vm, "h1", "paused");
    kill_the_sources_libvirtd(&cloud);
    mend(&cloud);
    cloud.start("libvirtd-h1");
    vm.ended("failed", AFTER_LIBVIRTS_PATIENCE);
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn source_stands_destination_does_not_answer_nothing_is_done_until_it_does() {
    let cloud = Cloud::new();
    let vm = cut_off(&cloud, &GuestSpec::new("stands-unknown", "h1"), &Cut::Answer);
    wait_for_state(&cloud, &vm, "h2", "running");
    cloud.kill("compute-h2");
    restart_the_sources_libvirtd(&cloud);
    wait_for("the record to say what it waits for", AFTER_LIBVIRTS_PATIENCE, || {
        vm.migration()["waiting_for"].as_str().is_some_and(|why| why.starts_with("the destination host to answer"))
    })
    .unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
    assert_eq!(vm.guest().state_on(&cloud.host("h1")).expect("virsh").as_deref(), Some("paused"), "not resumed on a guess");
    cloud.start("compute-h2");
    vm.ended("completed", AFTER_LIBVIRTS_PATIENCE);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn both_run_the_destinations_is_suspended_neither_is_destroyed_and_an_operator_chooses() {
    let cloud = Cloud::new();
    let vm = cut_off(&cloud, &GuestSpec::new("both-run", "h1"), &Cut::Answer);
    wait_for_state(&cloud, &vm, "h2", "running");
    // libvirt's own doing: its answer lost, the source goes on.
    wait_for_state(&cloud, &vm, "h1", "running");
    mend(&cloud);
    wait_for_state(&cloud, &vm, "h2", "paused");
    wait_for_state(&cloud, &vm, "h1", "running");
    let findings = cloud.api.get("2.80", "/drover/v1/findings").body;
    let finding = findings["findings"].as_array().expect("findings").iter().find(|f| f["server_uuid"] == vm.id());
    assert_eq!(finding.expect("a finding about the guest")["kind"], "ownership_conflict", "{findings:#}");
    assert_eq!(vm.server()["status"], "MIGRATING", "it is not decided");
    keep(&cloud, &vm, "h3").expect_err("h3 has no part in it");
    keep(&cloud, &vm, "h1").expect("the operator's choice");
    vm.ended("failed", AFTER_LIBVIRTS_PATIENCE);
    vm.assert_on("h1", "ACTIVE");
    let left = cloud.api.get("2.80", "/drover/v1/findings").body;
    assert!(!left.to_string().contains(vm.id()), "the finding is resolved: {left:#}");
}

/// `drover server keep`, as an operator calls it.
fn keep(cloud: &Cloud, vm: &Vm<'_>, host: &str) -> drover_testkit::Result<String> {
    cloud.bench.drover(["server", "keep", vm.id(), host])
}

#[test]
fn both_run_and_an_operator_chooses_the_destinations() {
    let cloud = Cloud::new();
    let vm = cut_off(&cloud, &GuestSpec::new("keep-h2", "h1"), &Cut::Answer);
    wait_for_state(&cloud, &vm, "h2", "running");
    wait_for_state(&cloud, &vm, "h1", "running");
    mend(&cloud);
    wait_for_state(&cloud, &vm, "h2", "paused");
    keep(&cloud, &vm, "h2").expect("the operator's choice");
    vm.ended("completed", AFTER_LIBVIRTS_PATIENCE);
    vm.assert_on("h2", "ACTIVE");
}

#[test]
fn both_run_and_the_migration_is_closed_the_destinations_is_suspended_by_its_debt() {
    let cloud = Cloud::new();
    let vm = cut_off(&cloud, &GuestSpec::new("closed-runs", "h1"), &Cut::Answer);
    wait_for_state(&cloud, &vm, "h2", "running");
    cloud.kill("compute-h2");
    wait_for_state(&cloud, &vm, "h1", "running");
    // The source has the guest and the destination is silent: what that has left is a debt.
    vm.ended("failed", AFTER_LIBVIRTS_PATIENCE);
    mend(&cloud);
    cloud.start("compute-h2");
    wait_for_state(&cloud, &vm, "h2", "paused");
    wait_for_state(&cloud, &vm, "h1", "running");
    assert_eq!((vm.host().as_str(), &vm.server()["status"]), ("h1", &"ACTIVE".into()));
}

#[test]
fn both_gone_the_guest_is_lost_and_never_restarted() {
    let cloud = Cloud::new();
    cloud.cap_bandwidth("h1", 4);
    let vm = cloud.boot(&GuestSpec { transient: true, ..GuestSpec::new("both-gone", "h1") });
    vm.start_migration(Some("h2"));
    vm.copying();
    kill(cloud.host("h1").qemu_pid(vm.name()).expect("pid files").expect("the guest on h1"));
    let migration = vm.ended("error", AFTER_LIBVIRTS_PATIENCE);
    assert_eq!(migration["fault"]["class"], "InstanceLost", "{migration:#}");
    let server = vm.server();
    assert_eq!((&server["status"], server["OS-EXT-STS:power_state"].as_i64()), (&"ERROR".into(), Some(4)), "{server}");
    assert!(server["fault"]["message"].as_str().is_some_and(|text| text.contains("neither h1 nor h2 runs it")), "{server}");
    for host in ["h1", "h2"] {
        assert_eq!(vm.guest().state_on(&cloud.host(host)).expect("virsh"), None, "{host}");
    }
}

#[test]
fn the_destination_host_loses_power_and_pays_its_debt_when_it_is_back() {
    let cloud = Cloud::new();
    cloud.cap_bandwidth("h1", 2);
    let vm = cloud.boot_on_h1("power-cut");
    vm.start_migration(Some("h2"));
    vm.copying();
    cloud.host("h2").power_off().expect("h2 loses power");
    vm.ended("failed", AFTER_LIBVIRTS_PATIENCE);
    assert_eq!((vm.host().as_str(), &vm.server()["status"]), ("h1", &"ACTIVE".into()));
    vm.assert_unharmed();
    cloud.bench.up(&drover_testkit::UpOptions { hosts: Some(3), older: 0, infrastructure_only: false }).expect("h2 is switched on");
    cloud.cap_bandwidth("h1", 0);
    // Until h2 has cleaned up it is no destination for this guest; then it is.
    wait_for("h2 to be a destination again", SOON, || {
        vm.migrate(Some("h2")).status == 202 && vm.settled(SOON)["status"] == "completed"
    })
    .unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}
