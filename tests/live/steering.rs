//! A copy that does not come to its end by itself: what is decided, what is told, and that the guest bears it.

use std::time::{Duration, Instant};

use drover_testkit::{Disk, GuestSpec, wait_for};
use serde_json::Value;

use crate::cloud::{Cloud, SOON};
use crate::faults::kill;
use crate::vm::Vm;

/// A link that a pass over the guest's working set takes a few seconds on, and a guest that writes faster than it carries.
const MIB_S: u32 = 12;
const DIRTY_MIB_S: f64 = 24.0;
/// Seven passes of the slowest guest here.
const PASSES: Duration = Duration::from_mins(2);

/// A guest on h1 that writes to this much memory, on its slow way to h2 under these options of h1's agent.
fn on_its_way<'a>(cloud: &'a Cloud, name: &str, working_set_mib: u32, options: &[(&str, &str)]) -> Vm<'a> {
    cloud.cap_bandwidth("h1", MIB_S);
    for (option, value) in options {
        cloud.set_option("compute-h1", &format!("LIBVIRT__{option}"), value);
    }
    let spec = GuestSpec {
        dirty_mib_s: DIRTY_MIB_S,
        working_set_mib: Some(working_set_mib),
        interval_ms: 200,
        ..GuestSpec::new(name, "h1")
    };
    let vm = cloud.boot(&spec);
    vm.start_migration(Some("h2"));
    vm
}

/// The reasons of the decisions of this kind, as the migration keeps them.
pub(crate) fn decided(migration: &Value, what: &str) -> Vec<String> {
    let steps = migration["steps"].as_array().expect("steps");
    let of_kind = steps.iter().filter(|step| step["kind"] == "decision" && step["what"] == what);
    of_kind.map(|step| step["why"].as_str().unwrap_or_default().to_owned()).collect()
}

fn phases(migration: &Value) -> Vec<&str> {
    let steps = migration["steps"].as_array().expect("steps");
    steps.iter().filter(|step| step["kind"] == "phase").filter_map(|step| step["what"].as_str()).collect()
}

#[test]
fn a_stall_that_the_downtime_budget_covers_ends_within_seconds_and_not_after_novas_delay() {
    let cloud = Cloud::new();
    let vm = on_its_way(&cloud, "in-budget", 3, &[]);
    let migration = vm.ended("completed", PASSES);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
    let steps: Vec<&Value> = migration["steps"].as_array().expect("steps").iter().collect();
    let raised = steps.iter().any(|step| {
        let why = step["why"].as_str().unwrap_or_default();
        why.contains("no progress in 3 passes") && why.ends_with("live_migration_downtime = 500 ms allows that")
    });
    assert!(raised, "{steps:#?}");
    assert_eq!(phases(&migration), ["accepted", "preparing", "running", "post-migrating", "completed"]);
    assert!(migration["policy"].as_str().is_some_and(|policy| policy.starts_with("downtime 50 to 500 ms")), "{migration:#}");
    let downtime_ms = migration["job_result"]["downtime_ms"].as_i64();
    assert!(downtime_ms.is_none_or(|ms| ms <= 1000), "{migration:#}");
}

#[test]
fn a_stall_is_taken_back_if_so_configured_and_shows_as_cancelled_with_its_reason() {
    let cloud = Cloud::new();
    let vm = on_its_way(&cloud, "stalls", 32, &[("LIVE_MIGRATION_STALL_ACTION", "abort")]);
    let migration = vm.ended("cancelled", PASSES);
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
    let why = decided(&migration, "abort");
    assert!(why.len() == 1 && why[0].contains("no progress in 3 passes"), "{migration:#}");
    assert!(migration["fault"]["message"].as_str().is_some_and(|fault| fault.contains(&why[0])), "{migration:#}");
    assert_eq!(vm.action()["message"], "Error", "nobody asked for it: the requester is told");
}

#[test]
fn a_completion_timeout_aborts_and_shows_as_cancelled_as_novas_does() {
    let cloud = Cloud::new();
    // For each GiB, of which two are reckoned.
    let vm = on_its_way(&cloud, "times-out", 32, &[("LIVE_MIGRATION_COMPLETION_TIMEOUT", "6")]);
    let migration = vm.ended("cancelled", PASSES);
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
    let why = decided(&migration, "abort");
    assert_eq!(why, ["it took longer than live_migration_completion_timeout: 12 s"], "{migration:#}");
}

#[test]
fn where_post_copy_is_permitted_a_stall_ends_in_it() {
    let cloud = Cloud::new();
    let vm = on_its_way(&cloud, "to-post-copy", 32, &[("LIVE_MIGRATION_PERMIT_POST_COPY", "true")]);
    let migration = vm.ended("completed", PASSES);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
    assert_eq!(decided(&migration, "post-copy").len(), 1, "{migration:#}");
    assert!(phases(&migration).contains(&"running (post-copy)"), "{migration:#}");
}

#[test]
fn the_end_that_is_foretold_never_runs_backwards() {
    let cloud = Cloud::new();
    cloud.set_option("compute-h1", "LIBVIRT__LIVE_MIGRATION_MONITOR_INTERVAL", "1");
    cloud.cap_bandwidth("h1", MIB_S);
    let spec = GuestSpec { dirty_mib_s: 6.0, interval_ms: 200, ..GuestSpec::new("foretold", "h1") };
    let vm = cloud.boot(&spec);
    vm.start_migration(Some("h2"));
    let (mut ends, mut bases) = (Vec::new(), 0);
    wait_for("the migration to end", PASSES, || {
        let migration = vm.migration();
        let (elapsed, outlook) = (migration["progress"]["elapsed_ms"].as_i64(), &migration["progress"]["outlook"]);
        bases += usize::from(outlook["basis"].is_string());
        if let (Some(elapsed), Some(eta)) = (elapsed, outlook["eta_ms"].as_i64()) {
            ends.push(elapsed + eta);
        }
        migration["status"] == "completed"
    })
    .unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
    assert!(bases > 0 && ends.is_sorted_by(|earlier, later| later <= earlier), "{ends:?}");
    vm.settled(SOON);
    vm.assert_unharmed();
}

/// From now on h1 opens one more connection to these ports of h2, which is the agent's try, and no other: its packets are dropped.
fn drop_all_but_one_connection(cloud: &Cloud, ports: &str) {
    let h2 = cloud.host("h2").address();
    let table = format!(
        "add table inet cut; add chain inet cut out {{ type filter hook output priority 0; }}; \
         add rule inet cut out ip daddr {h2} tcp dport {ports} tcp flags & (syn|ack) == syn limit rate over 1/hour burst 1 packets drop"
    );
    cloud.host("h1").run("nft", [table.as_str()]).expect("nft");
}

#[test]
fn packets_dropped_before_the_start_are_found_by_the_tries_and_named_with_host_and_port() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("unreachable");
    let h2 = cloud.host("h2").address();
    for (ports, what) in
        [("16509", format!("libvirt at {h2} port 16509")), ("49152-49215", format!("migration port at {h2} port 49"))]
    {
        let table = format!(
            "add table inet cut; add chain inet cut out {{ type filter hook output priority 0; }}; \
             add rule inet cut out ip daddr {h2} tcp dport {ports} drop"
        );
        cloud.host("h1").run("nft", [table.as_str()]).expect("nft");
        vm.start_migration(Some("h2"));
        let migration = vm.ended("error", SOON);
        let fault = migration["fault"]["message"].as_str().unwrap_or_default();
        assert!(fault.contains(&format!("h1 does not reach h2: {what}")), "{fault}");
        assert!(fault.contains("a firewall there or on the way probably drops the packets"), "{fault}");
        cloud.host("h1").run("nft", ["flush ruleset"]).expect("nft");
    }
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
}

fn force_complete(cloud: &Cloud, vm: &Vm<'_>) {
    let id = vm.migration()["id"].as_i64().expect("an id");
    let path = format!("/v2.1/servers/{}/migrations/{id}/action", vm.id());
    assert_eq!(cloud.api.post("2.65", &path, &serde_json::json!({"force_complete": null})).status, 202);
}

#[test]
fn two_copies_share_a_link_and_who_is_left_has_all_of_it() {
    let cloud = Cloud::new();
    cloud.set_option("conductor-1", "DEFAULT__MAX_CONCURRENT_LIVE_MIGRATIONS", "2");
    cloud.set_option("compute-h1", "LIBVIRT__LIVE_MIGRATION_LINK_BANDWIDTH", &MIB_S.to_string());
    let boot = |name: &str, disk: Disk| {
        let spec = GuestSpec { dirty_mib_s: DIRTY_MIB_S, working_set_mib: Some(32), disk, ..GuestSpec::new(name, "h1") };
        cloud.boot(&spec)
    };
    let (first, second) = (boot("shares-1", Disk::None), boot("shares-2", Disk::Local));
    // Its disk's block job, as libvirt shows it.
    let disk_runs_under = |mib: u32| {
        let told = cloud.host("h1").virsh(["blockjob", second.name(), "vda", "--info"]).unwrap_or_else(|e| e.chain());
        told.contains(&format!("({mib}.000 MiB/s)"))
    };
    first.start_migration(Some("h2"));
    second.start_migration(Some("h3"));
    // The row's word, the agent's, and what is really sent.
    let runs_under = |vm: &Vm<'_>, mib: u32| {
        let migration = vm.migration();
        let progress = &migration["progress"];
        let sent = progress["bytes_per_second"].as_f64().unwrap_or(0.0) / f64::from(1 << 20) / f64::from(mib);
        migration["bandwidth_mib"] == mib && progress["bandwidth_mib"] == mib && (0.6..1.3).contains(&sent)
    };
    let halves = || runs_under(&first, MIB_S / 2) && runs_under(&second, MIB_S / 2) && disk_runs_under(MIB_S / 2);
    wait_for("half of the link for each", SOON, halves)
        .unwrap_or_else(|e| panic!("{e}: {:#} {:#}", first.migration(), second.migration()));
    force_complete(&cloud, &first);
    first.ended("completed", PASSES);
    wait_for("all of it for the other", SOON, || runs_under(&second, MIB_S) && disk_runs_under(MIB_S))
        .unwrap_or_else(|e| panic!("{e}: {:#}", second.migration()));
    abort(&cloud, &second);
    second.ended("cancelled", SOON);
    first.assert_on("h2", "ACTIVE");
    second.assert_on("h1", "ACTIVE");
    first.assert_unharmed();
    second.assert_unharmed();
}

fn abort(cloud: &Cloud, vm: &Vm<'_>) {
    let id = vm.migration()["id"].as_i64().expect("an id");
    let answer = cloud.api.delete("2.65", &format!("/v2.1/servers/{}/migrations/{id}", vm.id()));
    assert_eq!(answer.status, 202, "{}", answer.message());
}

#[test]
fn an_abort_while_libvirt_connects_says_what_it_waits_for_and_ends_with_the_connect() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("connecting");
    drop_all_but_one_connection(&cloud, "16509");
    vm.start_migration(Some("h2"));
    wait_for("the start", SOON, || vm.migration()["status"] == "running").unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
    abort(&cloud, &vm);
    let waits =
        || vm.migration()["waiting_for"].as_str().is_some_and(|why| why.contains("libvirt's connect") && why.contains("at most"));
    wait_for("it to be said", SOON, waits).unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
    cloud.host("h1").run("nft", ["flush ruleset"]).expect("nft");
    vm.ended("cancelled", Duration::from_secs(150));
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn an_abort_while_qemu_connects_is_done_at_once() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("qemu-connects");
    drop_all_but_one_connection(&cloud, "49152-49215");
    vm.start_migration(Some("h2"));
    wait_for("the start", SOON, || vm.migration()["status"] == "running").unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
    abort(&cloud, &vm);
    vm.ended("cancelled", Duration::from_secs(150));
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
}

/// libvirt's from which to which on a destination crashes when it is asked to go on with a post-copy (fixed in 11.4.0).
fn destination_crashes(cloud: &Cloud) -> bool {
    let version = cloud.host("h2").run("libvirtd", ["--version"]).expect("a version");
    version.contains(" 11.2.") || version.contains(" 11.3.")
}

/// A broken post-copy that cannot go on keeps its libvirtds from doing anything else with the guest.
fn end_by_force(cloud: &Cloud, vm: &Vm<'_>) {
    for host in ["h1", "h2"] {
        if let Some(pid) = cloud.host(host).qemu_pid(vm.name()).expect("pid files") {
            kill(pid);
        }
        cloud.kill(&format!("libvirtd-{host}"));
        cloud.start(&format!("libvirtd-{host}"));
    }
}

/// How long the link is cut, at the least.
const CUT: Duration = Duration::from_secs(10);
/// The connections of migration streams, for `ss`.
const STREAMS: &str = "( sport >= 49152 and sport <= 49215 ) or ( dport >= 49152 and dport <= 49215 )";

#[test]
fn a_post_copy_that_breaks_is_told_of_and_gone_on_with() {
    let cloud = Cloud::new();
    // So slow that the link is cut long before the last page has come.
    let options = [("LIVE_MIGRATION_PERMIT_POST_COPY", "true"), ("LIVE_MIGRATION_BANDWIDTH", "3")];
    let vm = on_its_way(&cloud, "broken", 32, &options);
    let id = vm.copying()["id"].as_i64().expect("an id");
    let path = format!("/v2.1/servers/{}/migrations/{id}/action", vm.id());
    assert_eq!(cloud.api.post("2.65", &path, &serde_json::json!({"force_complete": null})).status, 202);
    wait_for("post-copy", SOON, || vm.migration()["status"] == "running (post-copy)").expect("post-copy");
    let state = |host: &str| cloud.host(host).virsh(["domstate", "--reason", vm.name()]).unwrap_or_else(|e| e.chain());
    wait_for("the guest to run on h2", SOON, || state("h2").contains("running (post-copy)")).expect("it runs there");
    // The link is cut, and the stream's connection breaks on both sides.
    cloud.host("h2").unplug().expect("a cut link");
    let cut = Instant::now();
    for host in ["h1", "h2"] {
        cloud.host(host).run("ss", ["-K", "-tn", STREAMS]).expect("ss");
    }
    wait_for("both sides to notice", SOON, || state("h1").contains("failed") && state("h2").contains("failed"))
        .unwrap_or_else(|e| panic!("{e}: {} {}", state("h1"), state("h2")));
    cloud.restart("compute-h1");
    cloud.restart("conductor-1");
    if !destination_crashes(&cloud) {
        std::thread::sleep(CUT.saturating_sub(cut.elapsed()));
    }
    cloud.host("h2").plug().expect("the link is back");
    let told = || {
        let migration = vm.migration();
        migration["status"] == "running (post-copy)"
            && migration["waiting_for"].as_str().is_some_and(|why| why.contains("post-copy") && why.contains("broke"))
    };
    if destination_crashes(&cloud) {
        wait_for("it to be told", SOON, told).unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
        let why = vm.migration()["waiting_for"].as_str().unwrap_or_default().to_owned();
        assert!(why.contains("install 11.4.0 or newer"), "{why}");
        let answer = cloud.api.delete("2.65", &format!("/v2.1/servers/{}/migrations/{id}", vm.id()));
        assert_eq!(answer.status, 400, "{}", answer.message());
        assert!(answer.message().contains("running (post-copy)"), "{}", answer.message());
        return end_by_force(&cloud, &vm);
    }
    vm.ended("completed", PASSES);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}
