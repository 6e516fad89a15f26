//! A guest moves, and nobody notices.

use std::time::Duration;

use drover_testkit::{CONSOLE_PORT, Disk, GuestSpec};
use serde_json::json;

use crate::cloud::{Cloud, SOON};

#[test]
fn a_guest_moves_to_the_host_that_was_asked_for() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("asked-for");
    let answer = vm.act("2.30", &json!({"host": "h2", "block_migration": "auto"}));
    assert_eq!(answer.status, 202, "{}", answer.message());
    assert_eq!(answer.body, serde_json::Value::Null);
    let migration = vm.ended("completed", SOON);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
    assert!(migration["job_result"]["downtime_ms"].is_i64(), "{migration:#}");
    let action = vm.action();
    assert_eq!((&action["action"], &action["message"]), (&json!("live-migration"), &json!(null)), "{action:#}");
    let events = action["events"].as_array().expect("events");
    for name in ["compute_live_migration", "compute_pre_live_migration", "compute_post_live_migration_at_destination"] {
        let event = events.iter().find(|e| e["event"] == name).unwrap_or_else(|| panic!("{name} is missing: {action:#}"));
        assert_eq!(event["result"], "Success", "{event}");
        assert!(event["finish_time"].is_string(), "{event}");
    }
}

#[test]
fn the_scheduler_chooses_another_host_when_none_was_asked_for() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("anywhere");
    vm.start_migration(None);
    vm.ended("completed", SOON);
    let host = vm.host();
    assert!(["h2", "h3"].contains(&host.as_str()), "{host}");
    vm.assert_on(&host, "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn the_base_version_takes_its_three_keys_and_answers_after_the_prechecks() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("base");
    let answer = vm.act("2.1", &json!({"host": "h3", "block_migration": false, "disk_over_commit": false}));
    assert_eq!(answer.status, 202, "{}", answer.message());
    let status = vm.migration()["internal_status"].clone();
    assert_ne!(status, "accepted", "the answer waits for the prechecks");
    vm.ended("completed", SOON);
    vm.assert_on("h3", "ACTIVE");
}

/// How `h1` and `h2` call what leads to the same network, and where consoles listen there.
const THERE_AND_BACK: [(&str, &str, &str); 2] = [("h2", "br-ex", "127.0.0.2"), ("h1", "br0", "127.0.0.1")];

#[test]
fn a_guest_moves_there_and_back_and_there_again_to_each_hosts_bridge_and_console_address() {
    let cloud = Cloud::new();
    cloud.add_bridge("h2", "br-ex");
    for (host, bridge, listen) in THERE_AND_BACK {
        let mappings = format!("[\"physnet1:{bridge}\"]");
        cloud.set_agent_options(host, &[("BRIDGE_MAPPINGS", &mappings), ("SERIAL_SERVER_LISTEN", listen)]);
    }
    let spec = GuestSpec { disk: Disk::Shared, dirty_mib_s: 2.0, console: true, ..GuestSpec::new("pendulum", "h1") };
    let vm = cloud.boot(&spec);
    for (host, bridge, listen) in THERE_AND_BACK.into_iter().cycle().take(3) {
        vm.start_migration(Some(host));
        vm.ended("completed", SOON);
        vm.assert_on(host, "ACTIVE");
        let xml = cloud.host(host).virsh(["dumpxml", vm.name()]).expect("dumpxml");
        for source in
            [format!("<source bridge='{bridge}'/>"), format!("<source mode='bind' host='{listen}' service='{CONSOLE_PORT}'")]
        {
            assert!(xml.contains(&source), "no {source} on {host}: {xml}");
        }
        let connect = format!("exec 3<>/dev/tcp/{listen}/{CONSOLE_PORT}");
        cloud.host(host).run("bash", ["-c", &connect]).unwrap_or_else(|e| panic!("the console on {host}: {}", e.chain()));
        vm.assert_unharmed(); // It is heard, so its bridge leads somewhere.
    }
    assert!(vm.longest_gap_ms() < 5000, "{} ms", vm.longest_gap_ms());
}

#[test]
fn a_paused_guest_stays_paused() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("paused");
    cloud.host("h1").virsh(["suspend", vm.name()]).expect("virsh suspends the guest");
    drover_testkit::wait_for("the server to show PAUSED", SOON, || vm.server()["status"] == "PAUSED").expect("paused");
    vm.start_migration(Some("h2"));
    vm.ended("completed", SOON);
    vm.assert_on("h2", "PAUSED");
    cloud.host("h2").virsh(["resume", vm.name()]).expect("virsh resumes the guest");
    vm.assert_unharmed();
}

#[test]
fn a_transient_guest_stays_transient_and_a_persistent_one_persistent() {
    let cloud = Cloud::new();
    for (name, transient) in [("transient", true), ("persistent", false)] {
        let vm = cloud.boot(&GuestSpec { transient, ..GuestSpec::new(name, "h1") });
        vm.start_migration(Some("h2"));
        vm.ended("completed", SOON);
        vm.assert_on("h2", "ACTIVE");
        let info = cloud.host("h2").virsh(["dominfo", vm.name()]).expect("dominfo");
        let persistent = info.lines().find(|line| line.starts_with("Persistent:")).expect("a line Persistent:");
        assert!(persistent.ends_with(if transient { "no" } else { "yes" }), "{name}: {persistent}");
        vm.assert_unharmed();
    }
}

#[test]
fn a_local_disk_is_copied_and_the_source_keeps_nothing() {
    let cloud = Cloud::new();
    let vm = cloud.boot(&GuestSpec { disk: Disk::Local, ..GuestSpec::new("local-disk", "h1") });
    for host in ["h2", "h1"] {
        let from = vm.host();
        vm.start_migration(Some(host));
        vm.ended("completed", SOON * 2);
        vm.assert_on(host, "ACTIVE");
        let images = cloud.host(&from).run("ls", ["/var/lib/libvirt/images"]).expect("ls");
        assert_eq!(images.trim(), "", "left on {from}");
    }
    vm.assert_unharmed();
}

#[test]
fn a_domain_moved_by_hand_keeps_its_server() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("by-hand");
    let uri = "qemu+tcp://h2/system";
    cloud
        .host("h1")
        .virsh(["migrate", "--live", "--p2p", "--persistent", "--undefinesource", vm.name(), uri])
        .expect("virsh migrate");
    drover_testkit::wait_for("the books to follow", Duration::from_secs(90), || {
        let server = vm.server();
        assert!(server.is_object(), "the server must be there all the time");
        server["OS-EXT-SRV-ATTR:host"] == "h2"
    })
    .expect("followed");
    vm.assert_on("h2", "ACTIVE");
    vm.start_migration(Some("h1"));
    vm.ended("completed", SOON);
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
}
