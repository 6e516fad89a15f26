//! What the agent says of its host's domains.

use std::time::Duration;

use drover_common::ids::ServerId;
use drover_common::rpc::latest::{Arrival, Authority, GuestState, JobKind, ToCompute};
use drover_compute::driver::{Domain, DomainEvent, DriverError, PauseReason, RunState};
use tokio::time::Instant;

use super::MIB;
use super::fake::Stage;

#[tokio::test(start_paused = true)]
async fn a_domain_that_cannot_be_read_is_there_and_keeps_nobody_from_knowing_the_others() {
    let silent = ServerId::random();
    let mut stage = Stage::new(|_, driver, _| driver.state().silent = vec![silent]);
    let up = stage.ups.recv().await.unwrap().domains;
    assert!(up.complete);
    assert_eq!((up.unreadable, up.domains.len(), up.domains[0].server), (vec![silent], 1, stage.of.server));
    stage.driver.state().silent.clear();
    stage.driver.state().xml_failures = 1;
    stage.cast(ToCompute::ReportDomains).await;
    let report = stage.domains.recv().await.unwrap();
    assert_eq!((report.complete, report.domains.len(), report.unreadable), (true, 0, vec![stage.of.server]));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_nobodys_is_watched_to_its_end_and_told_of_only_when_something_changes() {
    let mut stage = Stage::new(|_, _, _| {});
    stage.ups.recv().await.unwrap();
    stage.driver.set_job(Some(JobKind::MigrationOut), MIB);
    stage.driver.tell(DomainEvent::Changed(stage.of.server));
    let report = stage.domains.recv().await.unwrap();
    assert_eq!(report.domains[0].job, Some(JobKind::MigrationOut));
    is_quiet(&mut stage).await;
    stage.set_domain(|domain| domain.state = RunState::Suspended);
    let report = stage.domains.recv().await.unwrap();
    assert_eq!((report.complete, report.domains[0].job), (false, Some(JobKind::MigrationOut)));
    stage.driver.set_job(None, 0); // libvirt says nothing of a job that was aborted.
    let report = stage.domains.recv().await.unwrap();
    assert_eq!((report.complete, report.domains[0].job), (false, None));
    assert!(stage.driver.state().calls.is_empty() && stage.driver.state().actions.is_empty());
}

/// Lets the agent take in what libvirt just told it: paused time passes only when nothing is left to do.
async fn told(stage: &Stage) {
    stage.driver.tell(DomainEvent::Changed(stage.of.server));
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn is_quiet(stage: &mut Stage) {
    let report = tokio::time::timeout(Duration::from_secs(5), stage.domains.recv()).await;
    assert!(report.is_err(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_left_or_came_by_a_migration_is_told_of_by_the_migration_alone() {
    let mut source = Stage::new(|_, _, _| {});
    source.ups.recv().await.unwrap();
    source.cast(source.order()).await;
    source.until(|state| !state.calls.is_empty()).await;
    source.set_domain(|domain| domain.state = RunState::Paused(PauseReason::Migration));
    told(&source).await;
    source.driver.state().domain = None;
    told(&source).await;
    source.driver.return_from_call(Ok(()));
    assert_eq!(source.report().await.facts.guest, None);
    is_quiet(&mut source).await;

    let mut destination = Stage::new(|_, driver, _| driver.state().domain = None);
    destination.ups.recv().await.unwrap();
    destination.call::<()>(ToCompute::PreLiveMigration(destination.with_data())).await.unwrap();
    destination.driver.state().domain = Some(arrived(&destination));
    told(&destination).await;
    let arrival: Arrival = destination.call(ToCompute::PostLiveMigrationAtDestination(destination.with_data())).await.unwrap();
    assert_eq!(arrival.report.domains.len(), 1);
    is_quiet(&mut destination).await;
    destination.set_domain(|domain| domain.state = RunState::ShutOff);
    destination.driver.tell(DomainEvent::Changed(destination.of.server));
    let later = Instant::now();
    assert_eq!(destination.domains.recv().await.unwrap().domains[0].state, GuestState::ShutOff);
    assert!(later.elapsed() < Duration::from_secs(1), "the migration is over: {:?}", later.elapsed());
}

fn arrived(stage: &Stage) -> Domain {
    let (server, marker) = (stage.of.server, Some(stage.marker()));
    Domain { server, name: "g1".to_owned(), state: RunState::Running, persistent: true, job: None, marker }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_changes_while_a_migration_moves_it_is_looked_at_a_second_later() {
    let mut stage = Stage::new(|_, _, _| {});
    stage.ups.recv().await.unwrap();
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    stage.set_domain(|domain| domain.state = RunState::Suspended);
    let begin = Instant::now();
    stage.driver.tell(DomainEvent::Changed(stage.of.server));
    assert_eq!(stage.domains.recv().await.unwrap().domains[0].state, GuestState::Suspended);
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    stage.driver.state().domain = None;
    told(&stage).await;
    stage.driver.return_from_call(Err(DriverError::other("domain is not running")));
    assert_eq!(stage.report().await.facts.guest, None);
    assert_eq!(stage.domains.recv().await.unwrap().gone, [stage.of.server], "it did not leave, it is gone");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_was_expected_and_does_not_come_is_told_to_be_gone() {
    let mut stage = Stage::new(|_, driver, _| driver.state().domain = None);
    stage.ups.recv().await.unwrap();
    stage.call::<()>(ToCompute::PreLiveMigration(stage.with_data())).await.unwrap();
    told(&stage).await;
    let authority = Authority::Migration { attempt: stage.of.attempt };
    stage.call::<()>(ToCompute::RollbackLiveMigrationAtDestination(stage.clean_up(authority))).await.unwrap();
    assert_eq!(stage.domains.recv().await.unwrap().gone, [stage.of.server]);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_job_that_the_registration_saw_is_watched_to_its_end() {
    let mut stage = Stage::new(|_, driver, _| driver.set_job(Some(JobKind::MigrationOut), MIB));
    assert_eq!(stage.ups.recv().await.unwrap().domains.domains[0].job, Some(JobKind::MigrationOut));
    stage.driver.set_job(None, 0);
    let begin = Instant::now();
    let report = stage.domains.recv().await.unwrap();
    assert_eq!((report.complete, report.domains[0].job), (false, None));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}
