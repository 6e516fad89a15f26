//! The copy's share of the links: with the start, when it changes, and after a restart of the agent.

use drover_common::rpc::latest::{Bandwidth, JobKind, ToCompute, Watch};
use drover_compute::driver::{Action, DomainEvent, DriverError, NO_LIMIT};

use super::fake::{Stage, State};
use super::storage::copied;
use super::{MIB, watch};

fn speeds(state: &State) -> Vec<u64> {
    let set = |action: &Action| if let Action::SetMaxSpeed { mib, .. } = action { Some(*mib) } else { None };
    state.actions.iter().filter_map(set).collect()
}

fn share(stage: &Stage, bandwidth_mib: Option<u64>) -> ToCompute {
    ToCompute::LiveMigrationBandwidth(Bandwidth { of: stage.of, bandwidth_mib })
}

#[tokio::test]
async fn a_copy_begins_with_its_share_and_runs_under_each_new_one() {
    let stage = Stage::with_options("live_migration_bandwidth = 80", |script, _, _| script.bandwidth_mib = Some(50));
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    assert_eq!(stage.driver.state().calls[0].bandwidth_mib, 50);
    stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
    stage.cast(share(&stage, Some(25))).await;
    stage.until(|state| speeds(state) == [25]).await;
    stage.cast(share(&stage, Some(100))).await;
    stage.until(|state| speeds(state) == [25, 80]).await; // The host's own limit is lower.
    stage.cast(share(&stage, None)).await; // As before: libvirt need not be told.
    stage.driver.return_from_call(Err(DriverError::other("canceled by client")));
    stage.until(|state| speeds(state) == [25, 80, NO_LIMIT]).await; // The guest stayed, and may go again.
}

#[tokio::test]
async fn a_share_that_comes_before_the_job_is_seen_waits_for_it() {
    let stage = Stage::new(|_, _, _| {});
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    assert_eq!(stage.driver.state().calls[0].bandwidth_mib, 0, "libvirt's default");
    stage.cast(share(&stage, Some(40))).await;
    stage.cast(share(&stage, Some(30))).await;
    stage.driver.set_job(Some(JobKind::MigrationOut), 0); // It connects: libvirt would undo what is set now.
    stage.driver.tell(DomainEvent::Iteration(stage.of.server));
    stage.until(|state| state.looks > 2).await;
    assert!(speeds(&stage.driver.state()).is_empty());
    stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
    stage.until(|state| speeds(state).last() == Some(&30)).await;
    assert!(!speeds(&stage.driver.state()).contains(&40), "the last word counts");
}

#[tokio::test]
async fn copied_disks_have_a_part_of_the_share_each_and_the_memory_after_them_all_of_it() {
    let mut stage = Stage::new(|script, _, _| script.bandwidth_mib = Some(50));
    stage.ups.recv().await.unwrap(); // By then it knows its libvirt.
    let targets = ["vda", "vdb", "vdc"];
    let mut order = stage.with_data();
    order.data.block_migration = true;
    order.data.disks = targets.map(|target| copied(target, &format!("/d/{target}"))).to_vec();
    stage.cast(ToCompute::LiveMigration(order)).await;
    stage.until(|state| !state.calls.is_empty()).await;
    assert_eq!(stage.driver.state().calls[0].bandwidth_mib, 16, "libvirt gives it to each of the three");
    stage.driver.set_job(Some(JobKind::MigrationOut), 0);
    stage.cast(share(&stage, Some(100))).await;
    stage.until(|state| state.looks > 2).await;
    assert_eq!(stage.driver.state().disk_speeds, [], "there are no block jobs yet");
    stage.driver.state().sample.progress.disk_total = 3 * MIB;
    stage.until(|state| state.disk_speeds == [(targets.map(str::to_owned).to_vec(), 33)]).await;
    assert!(speeds(&stage.driver.state()).is_empty(), "libvirt would undo it");
    stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
    stage.until(|state| speeds(state) == [100]).await;
    stage.cast(share(&stage, Some(30))).await;
    stage.until(|state| speeds(state) == [100, 30] && state.disk_speeds.len() == 2).await;
    assert_eq!(stage.driver.state().disk_speeds[1].1, 10);
}

#[tokio::test]
async fn a_libvirt_that_would_hang_is_not_told_to_change_the_disks_and_the_memory_follows_its_share() {
    let mut stage = Stage::new(|script, driver, _| {
        script.bandwidth_mib = Some(50);
        driver.state().libvirt_is_old = true;
    });
    stage.ups.recv().await.unwrap();
    let mut order = stage.with_data();
    order.data.block_migration = true;
    order.data.disks = vec![copied("vda", "/d/vda")];
    stage.cast(ToCompute::LiveMigration(order)).await;
    stage.until(|state| !state.calls.is_empty()).await;
    stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
    stage.driver.state().sample.progress.disk_total = MIB;
    stage.cast(share(&stage, Some(20))).await;
    stage.until(|state| speeds(state) == [20]).await;
    assert_eq!(stage.driver.state().disk_speeds, []);
}

#[tokio::test]
async fn an_agent_that_comes_back_gives_the_copy_and_its_disks_their_share_of_now() {
    let stage = Stage::new(|script, driver, of| {
        script.watch = vec![Watch { bandwidth_mib: Some(20), ..watch(of) }];
        driver.set_job(Some(JobKind::MigrationOut), MIB);
        let mut state = driver.state();
        state.devices = "<disk type='file' device='disk'><source file='/d/vda'/><target dev='vda'/></disk>".to_owned();
        state.sample.progress.disk_total = MIB;
    });
    stage.until(|state| speeds(state) == [20] && state.disk_speeds == [(vec!["vda".to_owned()], 20)]).await;
}
