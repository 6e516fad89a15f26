//! How the memory travels: encrypted, on several connections, compressed; and what is refused before a guest is touched.

use drover_testkit::{Disk, GuestSpec, installed_major_version, wait_for};
use serde_json::{Value, json};

use crate::cloud::{Cloud, SOON};
use crate::refusals::{ask, assert_refused};
use crate::steering::decided;
use crate::vm::Vm;

/// A link on which a copy takes some seconds, and compression is worth it.
const SLOW_MIB_S: &str = "3";

/// QEMU's answer to a question about the guest on a host. It taints the domain, which a test guest bears.
fn qemu(cloud: &Cloud, vm: &Vm<'_>, host: &str, question: &str) -> Value {
    let command = json!({"execute": question}).to_string();
    let answer = cloud.host(host).virsh(["qemu-monitor-command", vm.name(), &command]).expect("QEMU answers");
    serde_json::from_str::<Value>(&answer).expect("JSON")["return"].take()
}

#[test]
fn a_guest_travels_encrypted_on_parallel_connections_and_compressed_where_the_link_is_slow_and_comes_back() {
    // libvirt has it since 9.1; Debian has 9.0, or 11.3.
    let has_zstd = installed_major_version().expect("libvirt's version") > 9;
    let cloud = Cloud::new();
    cloud.set_agent_options(
        "h2",
        &[
            ("LIVE_MIGRATION_WITH_NATIVE_TLS", "true"),
            ("LIVE_MIGRATION_REQUIRE_TLS", "true"),
            ("LIVE_MIGRATION_PARALLEL_CONNECTIONS", "2"),
        ],
    );
    let vm = cloud.boot(&GuestSpec { disk: Disk::Local, interval_ms: 200, ..GuestSpec::new("encrypted", "h1") });

    // The destination takes nothing in the clear, and the source has not been told to encrypt.
    assert_refused(&vm, &ask(&vm, "h2"), "h2 takes part in no migration without TLS (live_migration_require_tls,");

    cloud.set_agent_options(
        "h1",
        &[
            ("LIVE_MIGRATION_WITH_NATIVE_TLS", "true"),
            ("LIVE_MIGRATION_PARALLEL_CONNECTIONS", "2"),
            ("LIVE_MIGRATION_COMPRESSION", "auto"),
            ("LIVE_MIGRATION_BANDWIDTH", SLOW_MIB_S),
        ],
    );
    let (h1, certificate) = (cloud.host("h1"), "/etc/libvirt/pki/client-cert.pem");
    h1.run("mv", [certificate, "/run/away.pem"]).expect("the certificate is taken away");
    let answer = ask(&vm, "h2");
    h1.run("mv", ["/run/away.pem", certificate]).expect("the certificate is back");
    let text = format!("live_migration_require_tls: QEMU on h1 has no client certificate: {certificate} is missing");
    assert_refused(&vm, &answer, &text);

    vm.start_migration(Some("h2"));
    vm.copying();
    let parameters = qemu(&cloud, &vm, "h1", "query-migrate-parameters");
    assert_eq!(parameters["multifd-channels"], 2, "{parameters:#}");
    assert_eq!(parameters["multifd-compression"], if has_zstd { "zstd" } else { "none" }, "{parameters:#}");
    assert!(parameters["tls-creds"].as_str().is_some_and(|creds| !creds.is_empty()), "{parameters:#}");
    let capabilities = qemu(&cloud, &vm, "h1", "query-migrate-capabilities");
    assert!(capabilities.as_array().expect("a list").contains(&json!({"capability": "multifd", "state": true})), "{capabilities}");
    // The disk goes to an NBD server that lets nobody in who does not encrypt.
    let nodes = qemu(&cloud, &vm, "h1", "query-named-block-nodes");
    let files = nodes.as_array().into_iter().flatten().filter_map(|node| node["file"].as_str());
    let server =
        files.into_iter().find(|file| file.starts_with("nbd://")).unwrap_or_else(|| panic!("no disk is copied: {nodes:#}"));
    let refused = h1.run("qemu-img", ["info", server]).expect_err("the disk is copied in the clear").to_string();
    assert!(refused.contains("TLS"), "{refused}");
    let there = vm.ended("completed", SOON);
    let why = decided(&there, "stream");
    let compression = if has_zstd { "zstd level 1: live_migration_bandwidth carries 3 MiB/s" } else { "not compressed: zstd" };
    let expected = format!("TLS, parallel connections: 2; {compression}");
    assert!(why.len() == 1 && why[0].starts_with(&expected), "{why:?}");
    assert_eq!(decided(&there, "no way back"), Vec::<String>::new());

    // Back, on a link that is faster than zstd, or of which nothing is known.
    cloud.set_agent_options("h2", &[("LIVE_MIGRATION_COMPRESSION", "auto")]);
    vm.start_migration(Some("h1"));
    let back = vm.ended("completed", SOON);
    let why = decided(&back, "stream");
    assert!(why.len() == 1 && why[0].starts_with("TLS, parallel connections: 2; not compressed: "), "{why:?}");
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();

    let shown = cloud.bench.drover(["migration", "show", &there["id"].to_string()]).expect("drover migration show");
    assert!(shown.contains(&format!("stream: {expected}")), "{shown}");
    wait_for("nobody to have a copy left", SOON, || vm.guest().state_on(&cloud.host("h2")).is_ok_and(|state| state.is_none()))
        .expect("h2 is clean");
}
