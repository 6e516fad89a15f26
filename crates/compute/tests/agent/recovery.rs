//! A post-copy that broke is gone on with, by the conductor's leave and as often as it says.

use drover_common::rpc::latest::{CallState, GrantKind, GuestState, HostFacts, JobKind, Recovery, ToCompute};
use drover_compute::driver::{DomainEvent, DriverError, PauseReason, RunState};
use tokio::net::TcpListener;

use super::fake::Stage;
use super::{MIB, watch};

const POSTCOPY: u32 = 1 << 15;
const POSTCOPY_RESUME: u32 = 1 << 19;

/// An agent whose guest's post-copy broke, and the order to go on; the destination's libvirt is a port that is listened on.
async fn broken() -> (Stage, Recovery, TcpListener) {
    with_guest(PauseReason::PostCopyFailed).await
}

/// The same with a guest that stands for this reason.
async fn with_guest(reason: PauseReason) -> (Stage, Recovery, TcpListener) {
    let libvirt = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = libvirt.local_addr().unwrap().port();
    let options = format!("live_migration_uri = \"qemu+tcp://%s:{port}/system\"\nlive_migration_permit_post_copy = true");
    let stage = Stage::with_options(&options, |script, driver, of| {
        script.watch = vec![watch(of)];
        driver.state().domain.as_mut().unwrap().state = RunState::Paused(reason);
        driver.set_job(Some(JobKind::MigrationOut), MIB);
    });
    let mut with = stage.with_data();
    "127.0.0.1".clone_into(&mut with.data.destination.connect_address);
    (stage, Recovery { with, pause_ms: 10 }, libvirt)
}

#[tokio::test]
async fn an_agent_that_starts_tells_of_a_post_copy_that_broke_and_goes_on_when_told() {
    let (mut stage, order, _libvirt) = broken().await;
    let report = stage.report().await;
    assert_eq!(report.facts.guest.unwrap().state, GuestState::PausedPostCopyFailed);
    assert_eq!((report.facts.job, report.facts.call), (Some(JobKind::MigrationOut), CallState::Unseen));
    stage.cast(ToCompute::RecoverPostCopy(order.clone())).await;
    stage.until(|state| state.calls.len() == 1).await;
    stage.cast(ToCompute::RecoverPostCopy(order)).await;
    assert_eq!(stage.script.lock().unwrap().asked, [GrantKind::RecoverPostCopy]);
    let facts: HostFacts = stage.call(ToCompute::GetFacts(stage.of)).await.unwrap();
    assert_eq!(facts.call, CallState::InCall);
    let call = stage.driver.state().calls[0].clone();
    assert_eq!(call.flags & (POSTCOPY | POSTCOPY_RESUME), POSTCOPY | POSTCOPY_RESUME);
    stage.driver.state().domain = None;
    stage.driver.return_from_call(Ok(()));
    assert_eq!(stage.report().await.facts.call, CallState::ended(None));
    assert_eq!(stage.driver.state().calls.len(), 1, "an order that comes while it is in hand does nothing");
}

#[tokio::test]
async fn a_post_copy_that_breaks_while_it_is_watched_is_reported_and_may_be_gone_on_with() {
    let (mut stage, order, _libvirt) = with_guest(PauseReason::PostCopy).await;
    loop {
        let facts: HostFacts = stage.call(ToCompute::GetFacts(stage.of)).await.unwrap();
        if facts.call == CallState::Attached {
            break;
        }
    }
    stage.set_domain(|domain| domain.state = RunState::Paused(PauseReason::PostCopyFailed));
    stage.driver.tell(DomainEvent::Changed(stage.of.server));
    let report = stage.report().await;
    assert_eq!(report.facts.guest.unwrap().state, GuestState::PausedPostCopyFailed);
    assert!(matches!(report.facts.call, CallState::Ended { .. }));
    stage.cast(ToCompute::RecoverPostCopy(order)).await;
    stage.until(|state| state.calls.len() == 1).await;
}

#[tokio::test]
async fn a_try_that_fails_is_reported_and_may_be_ordered_again() {
    let (mut stage, order, _libvirt) = broken().await;
    stage.report().await;
    for tries in 1..=2 {
        stage.cast(ToCompute::RecoverPostCopy(order.clone())).await;
        stage.until(|state| state.calls.len() == tries).await;
        stage.driver.return_from_call(Err(DriverError::other("it broke again")));
        let report = stage.report().await;
        assert_eq!(report.facts.call, CallState::ended(Some("it broke again".to_owned())));
        assert_eq!(report.facts.guest.unwrap().state, GuestState::PausedPostCopyFailed);
    }
}

#[tokio::test]
async fn without_leave_without_a_link_or_without_anything_to_recover_libvirt_is_not_called() {
    let (mut stage, order, libvirt) = broken().await;
    stage.report().await;
    drop(libvirt);
    stage.cast(ToCompute::RecoverPostCopy(order.clone())).await;
    let report = stage.report().await;
    assert!(report.not_started.unwrap().starts_with("libvirt of h2 is not reached"));
    stage.set_domain(|domain| domain.state = RunState::Paused(PauseReason::PostCopy));
    stage.cast(ToCompute::RecoverPostCopy(order)).await;
    let why = stage.report().await.not_started.unwrap();
    assert!(why.contains("paused (post-copy): there is nothing to recover"), "{why}");
    let (mut refused, order, _libvirt) = broken().await;
    refused.report().await;
    refused.script.lock().unwrap().refuses = true;
    refused.cast(ToCompute::RecoverPostCopy(order)).await;
    loop {
        let facts: HostFacts = refused.call(ToCompute::GetFacts(refused.of)).await.unwrap();
        if facts.call == CallState::Unseen && !refused.script.lock().unwrap().asked.is_empty() {
            break;
        }
    }
    for stage in [stage, refused] {
        assert!(stage.driver.state().calls.is_empty());
    }
}
