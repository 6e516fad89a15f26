//! What is asked of a migration under way survives the agent's life, and a guest that was stopped for it goes on if it fails.

use drover_common::rpc::latest::{CallState, GrantKind, GuestState, HostFacts, JobKind, ToCompute, Watch};
use drover_compute::driver::{Action, DomainEvent, DriverError, PauseReason, RunState};

use super::fake::Stage;
use super::{MIB, watch};

#[tokio::test(start_paused = true)]
async fn a_job_is_taken_up_once_libvirt_answers_and_what_was_asked_of_it_is_done() {
    for (abort_requested, force_complete_requested, expected) in [(true, false, Action::AbortJob), (false, true, Action::Suspend)] {
        let stage = Stage::new(|script, driver, of| {
            script.watch = vec![Watch { abort_requested, force_complete_requested, ..watch(of) }];
            driver.set_job(Some(JobKind::MigrationOut), MIB);
            driver.state().xml_failures = 4; // One is the report's about all domains.
        });
        stage.until(|state| state.actions.contains(&expected)).await;
        assert_eq!(stage.driver.state().xml_failures, 0);
    }
}

#[tokio::test]
async fn a_job_that_could_not_be_taken_up_is_let_be_when_it_is_no_longer_ours() {
    let mut stage = Stage::new(|script, driver, of| {
        script.watch = vec![watch(of)];
        driver.set_job(Some(JobKind::MigrationOut), MIB);
        driver.state().xml_failures = u32::MAX;
    });
    stage.ups.recv().await.unwrap();
    stage.script.lock().unwrap().watch.clear();
    stage.driver.reconnect();
    stage.ups.recv().await.unwrap();
    stage.driver.state().xml_failures = 0;
    stage.cast(stage.order()).await; // Had it been taken up, this one would be known.
    stage.until(|state| !state.calls.is_empty()).await;
}

#[tokio::test]
async fn force_complete_is_post_copy_where_that_is_permitted_and_a_pause_where_it_is_not() {
    let (permitted, pause) = ("live_migration_permit_post_copy = true", Action::Suspend);
    for (options, expected, other) in [(permitted, Action::StartPostCopy, pause), ("", pause, Action::StartPostCopy)] {
        let stage = Stage::with_options(options, |_, _, _| {});
        stage.cast(stage.order()).await;
        stage.until(|state| !state.calls.is_empty()).await;
        stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
        stage.cast(ToCompute::LiveMigrationForceComplete(stage.of)).await;
        stage.until(|state| state.actions.contains(&expected)).await;
        assert!(!stage.driver.state().actions.contains(&other));
        let asked = stage.script.lock().unwrap().asked.clone();
        assert_eq!(asked.contains(&GrantKind::PostCopy), expected == Action::StartPostCopy, "{asked:?}");
    }
}

#[tokio::test]
async fn a_guest_that_was_stopped_to_force_its_copy_goes_on_when_the_copy_fails() {
    let mut stage = Stage::new(|_, _, _| {});
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
    stage.cast(ToCompute::LiveMigrationForceComplete(stage.of)).await;
    stage.until(|state| state.actions.contains(&Action::Suspend)).await;
    stage.driver.set_job(None, 0);
    stage.driver.return_from_call(Err(DriverError::other("connection reset")));
    let report = stage.report().await;
    assert_eq!(report.facts.guest.unwrap().state, GuestState::PausedMigration, "not the owner's wish");
    stage.call::<()>(ToCompute::ResumeGuest(stage.of)).await.unwrap();
    assert_eq!(stage.driver.state().actions.last(), Some(&Action::Resume));
    stage.set_domain(|domain| domain.state = RunState::Paused(PauseReason::Other));
    let facts: HostFacts = stage.call(ToCompute::GetFacts(stage.of)).await.unwrap();
    assert_eq!(facts.guest.unwrap().state, GuestState::Paused, "a later pause is the owner's");
}

#[tokio::test]
async fn a_guest_that_its_owner_paused_is_not_stopped_and_stays_paused() {
    let mut stage = Stage::new(|_, driver, _| {
        driver.state().domain.as_mut().unwrap().state = RunState::Paused(PauseReason::Other);
    });
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
    stage.cast(ToCompute::LiveMigrationForceComplete(stage.of)).await;
    stage.cast(ToCompute::LiveMigrationAbort(stage.of)).await;
    stage.until(|state| state.actions.contains(&Action::AbortJob)).await;
    stage.driver.set_job(None, 0);
    stage.driver.return_from_call(Err(DriverError::other("canceled by client")));
    let report = stage.report().await;
    assert_eq!(report.facts.guest.unwrap().state, GuestState::Paused);
    assert!(!stage.driver.state().actions.contains(&Action::Suspend));
}

#[tokio::test]
async fn a_stop_of_an_earlier_life_is_told_from_the_owners_by_what_was_asked_for() {
    for (force_complete_requested, expected) in [(true, GuestState::PausedMigration), (false, GuestState::Paused)] {
        let mut stage = Stage::new(|script, driver, of| {
            script.watch = vec![Watch { force_complete_requested, ..watch(of) }];
            driver.state().domain.as_mut().unwrap().state = RunState::Paused(PauseReason::Other);
        });
        let report = stage.report().await;
        assert_eq!((report.facts.guest.unwrap().state, report.facts.call), (expected, CallState::Unseen));
    }
}

#[tokio::test(start_paused = true)]
async fn force_complete_that_comes_with_the_leave_is_not_lost() {
    let stage = Stage::new(|script, _, _| script.is_silent = true);
    stage.cast(stage.order()).await;
    stage.cast(ToCompute::LiveMigrationForceComplete(stage.of)).await;
    let facts: HostFacts = stage.call(ToCompute::GetFacts(stage.of)).await.unwrap();
    assert_eq!(facts.call, CallState::Pending);
    stage.script.lock().unwrap().is_silent = false;
    stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
    stage.until(|state| !state.calls.is_empty()).await;
    stage.driver.tell(DomainEvent::Iteration(stage.of.server));
    stage.until(|state| state.actions.contains(&Action::Suspend)).await;
}
