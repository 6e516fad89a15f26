//! Processes die in the middle of a migration. libvirt's job goes on, nobody starts a second one, the record becomes true.
//!
//! The copy is slowed down so that it takes at least fifteen seconds, and each test first sees libvirt's job at work.

use std::time::Duration;

use drover_testkit::{GuestSpec, wait_for};

use crate::cloud::{Cloud, SOON};
use crate::vm::Vm;

/// An idle guest of the bench sends some 70 MiB: at this rate it takes some 20 s.
const SLOW_MIB_S: u32 = 3;
/// How often such a guest sends a datagram, in milliseconds. At the usual pace it writes about as fast as that link carries, and it
/// would be luck when the copy comes to its end.
const QUIET_MS: u32 = 200;
/// Enough for a slow copy and what comes after it.
const SLOWLY: Duration = Duration::from_mins(2);

/// libvirt's own account of the job on the guest's source.
#[derive(Debug)]
pub(crate) struct Job {
    elapsed_ms: u64,
    processed: u64,
}

/// Asks libvirt on `host` for the guest's job; it must be an outgoing migration at work.
fn job_at_work(cloud: &Cloud, vm: &Vm<'_>, host: &str) -> Job {
    let info = cloud.host(host).virsh(["domjobinfo", "--rawstats", vm.name()]).expect("domjobinfo");
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.trim().strip_prefix(name)?.trim_start().strip_prefix(':').map(str::trim));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {info}"))
    };
    assert!(field("memory_remaining") > 0, "no job at work: {info}");
    Job { elapsed_ms: field("time_elapsed"), processed: field("data_processed") }
}

/// A guest on h1 on its slow way to h2, libvirt's job at work.
pub(crate) fn on_its_way<'a>(cloud: &'a Cloud, name: &str) -> (Vm<'a>, Job) {
    cloud.cap_bandwidth("h1", SLOW_MIB_S);
    let vm = cloud.boot(&GuestSpec { interval_ms: QUIET_MS, ..GuestSpec::new(name, "h1") });
    vm.start_migration(Some("h2"));
    vm.copying();
    let job = job_at_work(cloud, &vm, "h1");
    (vm, job)
}

/// The same job went on: later and further than before.
fn assert_same_job(before: &Job, after: &Job) {
    assert!(after.elapsed_ms > before.elapsed_ms && after.processed >= before.processed, "{before:?} {after:?}: a second copy");
}

/// It came to its end on h2, in at least the time that the slow link needs, by one copy.
fn assert_arrived(vm: &Vm<'_>) {
    let migration = vm.ended("completed", SLOWLY);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
    assert_eq!(migration["attempt"], 1, "{migration:#}");
    if let Some(total_ms) = migration["job_result"]["total_ms"].as_i64() {
        assert!(total_ms >= 15_000, "the copy was not slow: {migration:#}");
    }
}

/// It failed; the guest goes on at its source, the reason is told, and the next try succeeds.
fn assert_stayed_and_can_move_again(cloud: &Cloud, vm: &Vm<'_>) {
    let migration = vm.ended("failed", SLOWLY);
    // At once, or (if h2 could not be asked just then) as a debt that is paid soon.
    wait_for("nothing to be left on h2", SOON, || {
        cloud.host("h2").virsh(["list", "--all", "--name"]).is_ok_and(|names| names.trim().is_empty())
    })
    .expect("clean");
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
    let reason = migration["fault"]["message"].as_str().unwrap_or_default();
    assert!(reason.starts_with("Migration error: ") && reason.len() > 20, "{migration:#}");
    let action = vm.action();
    assert_eq!(action["message"], "Error", "{action:#}");
    let failed = action["events"].as_array().expect("events").iter().find(|e| e["event"] == "compute_live_migration");
    assert_eq!(failed.expect("the event of libvirt's job")["result"], "Error", "{action:#}");
    cloud.cap_bandwidth("h1", 0);
    vm.start_migration(Some("h3"));
    vm.ended("completed", SOON);
    vm.assert_on("h3", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn the_destinations_qemu_is_killed() {
    let cloud = Cloud::new();
    let (vm, _) = on_its_way(&cloud, "qemu-killed");
    let qemu = cloud.host("h2").qemu_pid(vm.name()).expect("pid files").expect("an incoming QEMU on h2");
    kill(qemu);
    assert_stayed_and_can_move_again(&cloud, &vm);
}

pub(crate) fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("a process of the bench is killed");
}

#[test]
fn the_sources_libvirtd_is_restarted_in_the_copy() {
    let cloud = Cloud::new();
    let (vm, _) = on_its_way(&cloud, "source-libvirtd");
    cloud.kill("libvirtd-h1");
    cloud.start("libvirtd-h1");
    assert_stayed_and_can_move_again(&cloud, &vm);
}

#[test]
fn the_destinations_libvirtd_is_restarted_in_the_copy() {
    let cloud = Cloud::new();
    let (vm, _) = on_its_way(&cloud, "dest-libvirtd");
    cloud.kill("libvirtd-h2");
    cloud.start("libvirtd-h2");
    assert_stayed_and_can_move_again(&cloud, &vm);
}

#[test]
fn the_sources_agent_is_killed_and_comes_back() {
    let cloud = Cloud::new();
    let (vm, before) = on_its_way(&cloud, "agent-killed");
    cloud.kill("compute-h1");
    let meanwhile = job_at_work(&cloud, &vm, "h1");
    cloud.start("compute-h1");
    let after = job_at_work(&cloud, &vm, "h1");
    assert_same_job(&before, &meanwhile);
    assert_same_job(&meanwhile, &after);
    assert_arrived(&vm);
}

#[test]
fn the_sources_agent_is_stopped_in_order_and_the_job_goes_on() {
    let cloud = Cloud::new();
    let (vm, before) = on_its_way(&cloud, "agent-stopped");
    cloud.stop("compute-h1");
    let after = job_at_work(&cloud, &vm, "h1");
    assert_same_job(&before, &after);
    cloud.start("compute-h1");
    assert_arrived(&vm);
}

#[test]
fn the_sources_agent_is_away_while_the_guest_arrives() {
    let cloud = Cloud::new();
    let (vm, _) = on_its_way(&cloud, "agent-away");
    cloud.kill("compute-h1");
    wait_for("the guest to arrive", SLOWLY, || {
        vm.guest().state_on(&cloud.host("h2")).is_ok_and(|state| state.as_deref() == Some("running"))
    })
    .expect("arrived");
    assert_eq!(vm.server()["status"], "MIGRATING", "nobody can know yet: {:#}", vm.migration());
    cloud.start("compute-h1");
    vm.ended("completed", SOON);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn the_destinations_agent_is_away_while_the_guest_arrives() {
    let cloud = Cloud::new();
    let (vm, _) = on_its_way(&cloud, "dest-agent-away");
    cloud.kill("compute-h2");
    wait_for("the guest to arrive", SLOWLY, || {
        vm.guest().state_on(&cloud.host("h2")).is_ok_and(|state| state.as_deref() == Some("running"))
    })
    .expect("arrived");
    wait_for("the record to say what it waits for", SOON, || {
        vm.migration()["waiting_for"].as_str().is_some_and(|why| why.starts_with("the destination host to answer"))
    })
    .unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
    assert_eq!(vm.server()["status"], "MIGRATING");
    cloud.start("compute-h2");
    vm.ended("completed", SOON);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn rabbitmq_is_restarted() {
    let cloud = Cloud::new();
    let (vm, before) = on_its_way(&cloud, "rabbitmq");
    cloud.kill("rabbitmq");
    cloud.start("rabbitmq");
    assert_same_job(&before, &job_at_work(&cloud, &vm, "h1"));
    assert_arrived(&vm);
}

#[test]
fn the_broker_takes_the_shared_queue_away_and_nothing_else() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("queue-gone");
    delete_queue(&cloud, "conductor");
    // The conductor's own queue, connection and channel live on: only one of its consumers has ended.
    vm.start_migration(Some("h2"));
    vm.ended("completed", SOON);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

fn delete_queue(cloud: &Cloud, queue: &str) {
    let url = cloud.bench.cluster().expect("a cluster").amqp_url;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let deleted = runtime.block_on(async {
        let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.queue_delete(queue.into(), lapin::options::QueueDeleteOptions::default()).await
    });
    deleted.unwrap_or_else(|e| panic!("{queue} is deleted: {e}"));
}

#[test]
fn postgresql_is_restarted() {
    let cloud = Cloud::new();
    let (vm, before) = on_its_way(&cloud, "postgresql");
    cloud.kill("postgres");
    assert_same_job(&before, &job_at_work(&cloud, &vm, "h1"));
    cloud.start("postgres");
    assert_arrived(&vm);
}

#[test]
fn the_conductor_is_killed_between_the_answer_and_the_start() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("conductor");
    // From before it has read the message to after the source was told.
    for (round, delay_ms) in [0, 3, 6, 10, 15, 20, 30, 45].into_iter().enumerate() {
        let host = if round % 2 == 0 { "h2" } else { "h1" };
        vm.start_migration(Some(host));
        spin(Duration::from_millis(delay_ms));
        cloud.kill("conductor-1");
        cloud.start("conductor-1");
        vm.ended("completed", SOON);
        vm.assert_on(host, "ACTIVE");
    }
    vm.assert_unharmed();
}

/// Lets an exact, short time pass: the moment of the kill is what the test is about.
fn spin(time: Duration) {
    let begin = std::time::Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn requests_are_accepted_while_the_broker_is_away_and_carried_out_later() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("no-broker");
    cloud.kill("rabbitmq");
    vm.start_migration(Some("h2"));
    assert_eq!(vm.server()["status"], "MIGRATING");
    cloud.start("rabbitmq");
    vm.ended("completed", SOON);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn two_conductors_lead_four_guests_and_one_of_them_is_killed() {
    let cloud = Cloud::new();
    cloud.add_conductor("conductor-2");
    let vms: Vec<_> = (1..=4).map(|i| cloud.boot_on_h1(&format!("pair-{i}"))).collect();
    for vm in &vms {
        vm.start_migration(None);
    }
    cloud.kill("conductor-2");
    for vm in &vms {
        vm.ended("completed", SLOWLY);
        assert_ne!(vm.host(), "h1");
        vm.assert_on(&vm.host(), "ACTIVE");
        vm.assert_unharmed();
    }
}

#[test]
fn an_abort_in_the_copy_leaves_the_guest_where_it_is() {
    let cloud = Cloud::new();
    let (vm, _) = on_its_way(&cloud, "abort");
    let id = vm.migration()["id"].as_i64().expect("an id");
    let answer = cloud.api.delete("2.65", &format!("/v2.1/servers/{}/migrations/{id}", vm.id()));
    assert_eq!(answer.status, 202, "{}", answer.message());
    vm.ended("cancelled", SOON);
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
    assert!(cloud.host("h2").virsh(["list", "--all", "--name"]).expect("list").trim().is_empty(), "something is left on h2");
}
