//! What the agent says of its host's domains.

use drover_common::ids::ServerId;
use drover_common::rpc::latest::{JobKind, ToCompute};
use drover_compute::driver::{DomainEvent, RunState};

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
    let quiet = tokio::time::timeout(std::time::Duration::from_secs(5), stage.domains.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    stage.set_domain(|domain| domain.state = RunState::Suspended);
    let report = stage.domains.recv().await.unwrap();
    assert_eq!((report.complete, report.domains[0].job), (false, Some(JobKind::MigrationOut)));
    stage.driver.set_job(None, 0); // libvirt says nothing of a job that was aborted.
    let report = stage.domains.recv().await.unwrap();
    assert_eq!((report.complete, report.domains[0].job), (false, None));
    assert!(stage.driver.state().calls.is_empty() && stage.driver.state().actions.is_empty());
}
