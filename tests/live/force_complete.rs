//! A copy that would never end is forced to: the guest stands until it has arrived, and goes on wherever it then is.

use std::time::Duration;

use drover_testkit::{GuestSpec, LATEST, wait_for};
use serde_json::json;

use crate::cloud::{Cloud, SOON};
use crate::faults::kill;
use crate::vm::Vm;

/// Slower than the guest writes, so that the copy cannot come to its end by itself.
const MIB_S: u32 = 6;
const DIRTY_MIB_S: f64 = 12.0;
/// Enough for what is left of the copy once the guest stands.
const FORCED: Duration = Duration::from_mins(2);

/// A guest on h1 on its way to h2 that stands, because force-complete was asked for.
fn forced<'a>(cloud: &'a Cloud, name: &str) -> Vm<'a> {
    cloud.cap_bandwidth("h1", MIB_S);
    let vm = cloud.boot(&GuestSpec { dirty_mib_s: DIRTY_MIB_S, ..GuestSpec::new(name, "h1") });
    vm.start_migration(Some("h2"));
    let id = vm.copying()["id"].as_i64().expect("an id");
    let path = format!("/v2.1/servers/{}/migrations/{id}/action", vm.id());
    let answer = cloud.api.post(LATEST, &path, &json!({"force_complete": null}));
    assert_eq!(answer.status, 202, "{}", answer.message());
    wait_for("the guest to stand", SOON, || {
        vm.guest().state_on(&cloud.host("h1")).is_ok_and(|state| state.as_deref() == Some("paused"))
    })
    .unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
    vm
}

#[test]
fn a_forced_copy_ends_with_the_guest_running_on_its_destination() {
    let cloud = Cloud::new();
    let vm = forced(&cloud, "forced");
    vm.ended("completed", FORCED);
    vm.assert_on("h2", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn a_forced_copy_that_fails_ends_with_the_guest_running_on_its_source() {
    let cloud = Cloud::new();
    let vm = forced(&cloud, "forced-fails");
    kill(cloud.host("h2").qemu_pid(vm.name()).expect("pid files").expect("an incoming QEMU on h2"));
    vm.ended("failed", FORCED);
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
}

#[test]
fn a_forced_copy_that_is_aborted_after_a_restart_of_the_agent_ends_with_the_guest_running_on_its_source() {
    let cloud = Cloud::new();
    let vm = forced(&cloud, "forced-aborted");
    let id = vm.migration()["id"].as_i64().expect("an id");
    cloud.kill("compute-h1");
    let answer = cloud.api.delete("2.65", &format!("/v2.1/servers/{}/migrations/{id}", vm.id()));
    assert_eq!(answer.status, 202, "{}", answer.message());
    cloud.start("compute-h1");
    vm.ended("cancelled", SOON);
    vm.assert_on("h1", "ACTIVE");
    vm.assert_unharmed();
}
