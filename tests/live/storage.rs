//! A guest with every kind of local disk moves, and all of it arrives: layers, config drive, what it has written.

use std::os::unix::fs::MetadataExt;

use drover_testkit::{BASE_PATTERN, Disk, GuestSpec, wait_for};

use crate::cloud::{Cloud, SOON};
use crate::faults;
use crate::vm::Vm;

/// An idle guest of the bench sends some 70 MiB of memory after its disks: at this rate that takes half a minute.
const SLOW_MIB_S: u32 = 2;
/// More than an image holds that was only made.
const COPIED_BYTES: u64 = 1 << 20;
const IMAGES: &str = "/var/lib/libvirt/images";

/// Everything in the host's image directory, hidden files too.
fn images(cloud: &Cloud, host: &str) -> String {
    cloud.host(host).run("ls", ["-A", IMAGES]).expect("ls").trim().to_owned()
}

fn digest(cloud: &Cloud, host: &str, path: &str) -> String {
    let line = cloud.host(host).run("sha256sum", [path]).expect("sha256sum");
    line.split_whitespace().next().expect("a digest").to_owned()
}

/// What the first disk has of the image below it, where the guest has not written: read beside the guest.
fn assert_base_shows(cloud: &Cloud, vm: &Vm<'_>, host: &str) {
    let read = format!("read -P {BASE_PATTERN} 64k 32k");
    let told =
        cloud.host(host).run("qemu-io", ["-r", "-U", "-f", "qcow2", "-c", &read, &vm.guest().local_disk()]).expect("qemu-io");
    assert!(!told.contains("failed"), "{told}");
}

/// What `vda` lies on, by libvirt's word.
fn lies_on_its_base(cloud: &Cloud, vm: &Vm<'_>, host: &str) -> bool {
    let xml = cloud.host(host).virsh(["dumpxml", vm.name()]).expect("dumpxml");
    xml.contains(&vm.guest().own_base())
}

fn move_to(cloud: &Cloud, vm: &Vm<'_>, host: &str) {
    let from = vm.host();
    vm.start_migration(Some(host));
    vm.ended("completed", SOON * 2);
    vm.assert_on(host, "ACTIVE");
    let base = vm.guest().own_base().replace(&format!("{IMAGES}/"), "");
    let left = images(cloud, &from);
    assert!(left.is_empty() || left == base, "left on {from}: {left}");
}

#[test]
fn layers_a_raw_disk_and_a_config_drive_arrive_and_a_copy_that_fails_leaves_nothing() {
    let cloud = Cloud::new();
    cloud.cap_bandwidth("h1", SLOW_MIB_S);
    let vm = cloud.boot(&GuestSpec { disk: Disk::Layers, ..GuestSpec::new("layers", "h1") });
    let (base, config) = (vm.guest().own_base(), vm.guest().config_drive());
    let carried = digest(&cloud, "h1", &config);
    // h2 has the same base under the same path, as from a cache of images; h3 has none.
    let there = |host: &str| cloud.host(host).outside_path(base.as_ref()).expect("a path");
    std::fs::copy(there("h1"), there("h2")).expect("the base is copied");

    vm.start_migration(Some("h2"));
    let disk = cloud.host("h2").outside_path(vm.guest().local_disk().as_ref()).expect("a path");
    wait_for("a part of the disk to be on h2", SOON, || {
        std::fs::metadata(&disk).is_ok_and(|there| there.blocks() * 512 > COPIED_BYTES)
    })
    .unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
    assert_eq!(digest(&cloud, "h2", &config), carried, "the config drive is there before the guest");
    faults::kill(cloud.host("h2").qemu_pid(vm.name()).expect("pid files").expect("an incoming QEMU on h2"));
    vm.ended("failed", SOON * 2);
    let only_base = base.replace(&format!("{IMAGES}/"), "");
    wait_for("nothing to be left on h2", SOON, || images(&cloud, "h2") == only_base).expect("clean");
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
    cloud.cap_bandwidth("h1", 0);

    move_to(&cloud, &vm, "h2");
    assert!(lies_on_its_base(&cloud, &vm, "h2"), "the base that h2 has was brought along");
    assert_base_shows(&cloud, &vm, "h2");
    move_to(&cloud, &vm, "h3");
    assert!(!lies_on_its_base(&cloud, &vm, "h3"), "h3 has no base to lie on");
    assert_base_shows(&cloud, &vm, "h3");
    assert_eq!(digest(&cloud, "h3", &config), carried);
    move_to(&cloud, &vm, "h1");
    assert_base_shows(&cloud, &vm, "h1");
    assert_eq!(digest(&cloud, "h1", &config), carried);
    assert_eq!(images(&cloud, "h3"), "");
    vm.assert_unharmed();
}
