//! The agent as a whole, between a conductor and a hypervisor that the test plays.

use std::time::Duration;

use drover_common::bus::{Address, CallError};
use drover_common::ids::{HostName, Revision};
use drover_common::migration::JobResult;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{CallState, HostFacts, JobKind, OfAttempt, Stream, ToCompute, Watch};
use drover_compute::driver::{Action, DomainEvent, DriverError};
use fake::{Stage, address};

mod bandwidth;
mod checks;
mod clean_up;
mod connections;
mod convergence;
mod fake;
mod hosts;
mod observed;
mod power;
mod recovery;
mod storage;
mod wishes;

const MIB: i64 = 1 << 20;

/// The conductor's word that an earlier life of the agent may have left this migration.
fn watch(of: OfAttempt) -> Watch {
    Watch {
        of,
        revision: Revision(9),
        abort_requested: false,
        force_complete_requested: false,
        no_post_copy: false,
        bandwidth_mib: None,
    }
}

#[tokio::test]
async fn an_order_that_comes_twice_starts_one_migration_and_its_end_is_reported() {
    let mut stage = Stage::new(|_, _, _| {});
    stage.cast(stage.order()).await;
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    let facts: HostFacts = stage.call(ToCompute::GetFacts(stage.of)).await.unwrap();
    assert_eq!(facts.call, CallState::InCall);
    stage.driver.state().domain = None;
    let account = Box::new(JobResult { downtime_ms: Some(30), ..JobResult::default() });
    stage.driver.tell(DomainEvent::JobCompleted(stage.of.server, account));
    stage.driver.return_from_call(Ok(()));
    let report = stage.report().await;
    assert_eq!((report.revision, &report.facts.guest), (Some(Revision(5)), &None));
    assert_eq!(report.facts.call, CallState::ended(None));
    let result = report.result.unwrap();
    assert!(result.downtime_ms == Some(30) && result.call_ms.is_some());
    stage.cast(stage.order()).await;
    let facts: HostFacts = stage.call(ToCompute::GetFacts(stage.of)).await.unwrap();
    assert_eq!(facts.call, CallState::ended(None));
    let calls = &stage.driver.state().calls;
    assert_eq!((calls.len(), calls[0].flags, calls[0].destination_uri.as_str()), (1, 27, "qemu+tcp://h2/system"));
    assert!(calls[0].destination_xml.contains(r#"id="7" attempt="1""#) && calls[0].persistent_xml.is_some());
}

#[tokio::test]
async fn a_stream_that_was_agreed_on_is_what_libvirt_is_called_with_and_is_told() {
    let mut stage = Stage::new(|_, _, _| {});
    let mut order = stage.with_data();
    order.data.stream =
        Some(Stream { parallel_connections: Some(4), zstd_level: Some(3), why: "zstd level 3: eth0 is slow".to_owned() });
    order.data.no_way_back = Some("QEMU 10.0.2 of h2 is newer than 7.2.0 of h1".to_owned());
    stage.cast(ToCompute::LiveMigration(order)).await;
    stage.until(|state| !state.calls.is_empty()).await;
    {
        let call = &stage.driver.state().calls[0];
        assert_eq!((call.parallel_connections, call.zstd_level), (Some(4), Some(3)));
        assert_eq!(call.flags, 27 + (1 << 11) + (1 << 17), "compressed, parallel");
    }
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(stage.decisions.recv().await.unwrap());
    }
    let why = |what: &str| told.iter().find(|decision| decision.what == what).map(|decision| decision.why.as_str());
    assert_eq!(why("stream"), Some("zstd level 3: eth0 is slow"));
    assert!(why("no way back").is_some_and(|why| why.contains("newer")), "{told:?}");
}

#[tokio::test]
async fn a_refused_start_calls_nothing_and_may_be_ordered_again() {
    let mut stage = Stage::new(|script, _, _| script.refuses = true);
    stage.cast(stage.order()).await;
    loop {
        let facts: HostFacts = stage.call(ToCompute::GetFacts(stage.of)).await.unwrap();
        if facts.call == CallState::Unseen {
            break;
        }
    }
    stage.script.lock().unwrap().refuses = false;
    stage.cast(stage.order()).await;
    stage.until(|state| state.calls.len() == 1).await;
    stage.driver.return_from_call(Err(DriverError::other("no route"))); // The guest stays.
    let report = stage.report().await;
    assert_eq!(report.facts.call, CallState::ended(Some("no route".to_owned())));
    assert!(report.facts.guest.is_some() && report.result.is_none());
}

#[tokio::test]
async fn an_abort_before_the_start_is_a_migration_that_was_not_started() {
    let mut stage = Stage::new(|script, _, _| script.abort_requested = true);
    stage.cast(stage.order()).await;
    let report = stage.report().await;
    assert!(report.not_started.is_some() && report.revision == Some(Revision(5)));
    assert!(stage.driver.state().calls.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_any_answer_to_the_request_for_leave_nothing_is_started() {
    let mut stage = Stage::new(|script, _, _| script.is_silent = true);
    stage.cast(stage.order()).await;
    let report = stage.report().await;
    assert!(report.not_started.is_some() && report.revision.is_none());
    assert_eq!(report.facts.call, CallState::Unseen);
    assert!(stage.driver.state().calls.is_empty());
}

#[tokio::test]
async fn commands_reach_the_job_once_it_is_seen() {
    let mut stage = Stage::new(|_, _, _| {});
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    stage.cast(ToCompute::LiveMigrationForceComplete(stage.of)).await;
    stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
    stage.until(|state| state.actions.contains(&Action::Suspend)).await;
    stage.cast(ToCompute::LiveMigrationAbort(stage.of)).await;
    stage.until(|state| state.actions.contains(&Action::AbortJob)).await;
    stage.driver.set_job(None, 0);
    stage.driver.return_from_call(Err(DriverError::other("canceled by client")));
    let report = stage.report().await;
    assert_eq!(report.result.unwrap().progress.memory_total, 128 * MIB, "the last real sample");
}

#[tokio::test]
async fn a_job_of_an_earlier_life_is_watched_to_its_end_and_never_started_again() {
    let mut stage = Stage::new(|script, driver, of| {
        script.watch = vec![watch(of)];
        driver.set_job(Some(JobKind::MigrationOut), MIB);
    });
    loop {
        let facts: HostFacts = stage.call(ToCompute::GetFacts(stage.of)).await.unwrap();
        if facts.call == CallState::Attached {
            break;
        }
    }
    stage.cast(stage.order()).await;
    stage.driver.state().domain = None;
    let account = Box::new(JobResult { total_ms: Some(9000), ..JobResult::default() });
    stage.driver.tell(DomainEvent::JobCompleted(stage.of.server, account));
    let report = stage.report().await;
    assert_eq!((report.revision, report.facts.call), (Some(Revision(9)), CallState::ended(None)));
    assert_eq!(report.result.unwrap().total_ms, Some(9000));
    assert!(stage.driver.state().calls.is_empty());
}

#[tokio::test]
async fn a_job_that_ended_while_no_agent_looked_is_reported_with_what_is_seen_now() {
    let mut stage = Stage::new(|script, _, of| script.watch = vec![watch(of)]);
    let report = stage.report().await;
    assert_eq!((report.revision, report.facts.call), (Some(Revision(9)), CallState::Unseen));
    assert!(report.facts.guest.is_some() && report.facts.job.is_none());
}

#[tokio::test]
async fn a_call_that_breaks_with_its_connection_is_watched_on_while_libvirt_has_the_job() {
    let mut stage = Stage::new(|_, _, _| {});
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    stage.driver.set_job(Some(JobKind::MigrationOut), MIB);
    stage.driver.return_from_call(Err(DriverError::unavailable("client socket is closed")));
    loop {
        let facts: HostFacts = stage.call(ToCompute::GetFacts(stage.of)).await.unwrap();
        if facts.call == CallState::Attached {
            break;
        }
    }
    stage.driver.set_job(None, 0);
    stage.driver.tell(DomainEvent::Changed(stage.of.server));
    let report = stage.report().await;
    assert_eq!(report.facts.call, CallState::ended(Some("client socket is closed".to_owned())));
}

#[tokio::test]
async fn only_the_control_plane_gives_orders() {
    let stage = Stage::new(|_, _, _| {});
    let (other_agent, _inbox) = stage.broker.join(&Address::Compute(HostName::new("h2").unwrap()));
    let question = Envelope::new(ToCompute::GetFacts(stage.of));
    let answer = other_agent.call::<_, HostFacts>(&address(), &question, Duration::from_secs(5)).await;
    assert!(matches!(&answer, Err(CallError::Fault(fault)) if fault.message.contains("control plane")), "{answer:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_with_a_fault() {
    let stage = Stage::new(|_, _, _| {});
    let question = Envelope::new(serde_json::json!({"kind": "make_coffee", "body": {}}));
    let answer = stage.conductor.call::<_, HostFacts>(&address(), &question, Duration::from_secs(5)).await;
    assert!(matches!(&answer, Err(CallError::Fault(_))), "{answer:?}");
}

#[tokio::test]
async fn told_to_stop_the_agent_lets_go_of_a_migration_and_ends() {
    let stage = Stage::new(|_, _, _| {});
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    stage.life.stop.cancel();
    stage.life.tasks.close();
    tokio::time::timeout(Duration::from_secs(5), stage.life.tasks.wait()).await.expect("all tasks end");
    assert!(stage.driver.state().actions.is_empty(), "the job is neither aborted nor touched");
}
