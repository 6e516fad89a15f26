//! What is removed, stopped and let go on after a migration: only what is its, and only as it is at that very moment.

use std::time::Duration;

use drover_common::bus::CallError;
use drover_common::fault::FaultClass;
use drover_common::ids::{Attempt, MigrationId};
use drover_common::rpc::latest::{Arrival, Authority, GrantKind, GuestState, Marker, ToCompute};
use drover_compute::driver::{Action, PauseReason, RunState};

use super::fake::{Stage, State};
use super::storage::copied;

const BY_MIGRATION: Authority = Authority::Migration { attempt: Attempt(2) };
const BY_DEBT: Authority = Authority::Debt { id: 3 };
const STANDS: RunState = RunState::Paused(PauseReason::Migration);

/// The fault that a call was answered with.
pub(crate) async fn fault(stage: &Stage, message: ToCompute) -> drover_common::fault::Fault {
    match stage.call::<()>(message).await {
        Err(CallError::Fault(fault)) => fault,
        other => panic!("no fault but {other:?}"),
    }
}

fn stage(state: RunState, marker: impl Fn(&Stage) -> Option<Marker>) -> Stage {
    let stage = Stage::new(|_, _, _| {});
    let marker = marker(&stage);
    stage.set_domain(|domain| {
        domain.state = state;
        domain.marker = marker;
    });
    stage
}

fn while_leave_is_asked_for(stage: &Stage, happens: impl Fn(&mut State) + Send + 'static) {
    stage.script.lock().unwrap().on_grant = Some(Box::new(happens));
}

fn starts_to_run(state: &mut State) {
    if let Some(domain) = &mut state.domain {
        domain.state = RunState::Running;
    }
}

#[tokio::test]
async fn a_guest_that_went_off_after_it_came_has_arrived_and_one_that_left_nothing_is_not_found() {
    let stage = stage(RunState::ShutOff, |stage| Some(stage.marker()));
    let take_over = || ToCompute::PostLiveMigrationAtDestination(stage.with_data());
    let Arrival { report, announced_after_ms } = stage.call(take_over()).await.unwrap();
    assert_eq!(announced_after_ms, None, "nobody announced it");
    assert_eq!((report.domains.len(), report.domains[0].state, report.complete), (1, GuestState::ShutOff, false));
    stage.set_domain(|domain| domain.marker = None);
    let other = fault(&stage, take_over()).await;
    assert_eq!(other.class, FaultClass::MigrationError, "a definition that was here before: {other}");
    stage.driver.state().domain = None;
    assert_eq!(fault(&stage, take_over()).await.class, FaultClass::InstanceNotFound);
}

#[tokio::test]
async fn how_soon_a_guest_was_announced_is_told_as_often_as_asked_and_not_of_its_next_arrival() {
    let stage = stage(RunState::Running, |stage| Some(stage.marker()));
    stage.ctx.announced.note(stage.of.server, Duration::from_micros(1400));
    for _ in 0..2 {
        let arrival: Arrival = stage.call(ToCompute::PostLiveMigrationAtDestination(stage.with_data())).await.unwrap();
        assert_eq!((arrival.announced_after_ms, arrival.report.domains.len()), (Some(2), 1));
    }
    stage.call::<()>(ToCompute::PreLiveMigration(stage.with_data())).await.unwrap();
    let again: Arrival = stage.call(ToCompute::PostLiveMigrationAtDestination(stage.with_data())).await.unwrap();
    assert_eq!(again.announced_after_ms, None);
}

#[tokio::test]
async fn a_late_debt_of_the_source_leaves_a_guest_alone_that_was_moved_back_by_hand() {
    for state in [RunState::ShutOff, RunState::Running, STANDS] {
        let stage = stage(state, |stage| Some(stage.marker()));
        stage.call::<()>(ToCompute::PostLiveMigration(stage.clean_up(BY_DEBT))).await.unwrap();
        assert!(stage.driver.state().actions.is_empty() && stage.script.lock().unwrap().asked.is_empty(), "{state:?}");
    }
}

#[tokio::test]
async fn a_copy_that_was_left_standing_is_destroyed_and_its_definition_removed() {
    let earlier = Marker { migration: MigrationId(6), attempt: Attempt(1) };
    let source = stage(STANDS, |_| Some(earlier));
    source.call::<()>(ToCompute::PostLiveMigration(source.clean_up(BY_MIGRATION))).await.unwrap();
    let destination = stage(STANDS, |stage| Some(stage.marker()));
    destination.call::<()>(ToCompute::RollbackLiveMigrationAtDestination(destination.clean_up(BY_MIGRATION))).await.unwrap();
    for stage in [source, destination] {
        assert_eq!(stage.driver.state().actions, [Action::Destroy, Action::Undefine]);
        assert_eq!(stage.driver.state().domain, None);
    }
}

#[tokio::test]
async fn a_copy_that_begins_to_run_while_leave_is_asked_for_is_not_destroyed() {
    let source = stage(STANDS, |_| None);
    let destination = stage(STANDS, |stage| Some(stage.marker()));
    let source_order = ToCompute::PostLiveMigration(source.clean_up(BY_MIGRATION));
    let destination_order = ToCompute::RollbackLiveMigrationAtDestination(destination.clean_up(BY_MIGRATION));
    for (stage, order) in [(source, source_order), (destination, destination_order)] {
        while_leave_is_asked_for(&stage, starts_to_run);
        let fault = fault(&stage, order).await;
        assert!(fault.message.contains("domain g1 on h1 is running"), "{fault}");
        assert!(stage.driver.state().actions.is_empty());
    }
}

#[tokio::test]
async fn a_guest_that_changes_while_leave_is_asked_for_is_neither_resumed_nor_suspended() {
    let resumed = stage(STANDS, |_| None);
    let order = ToCompute::ResumeGuest(resumed.of);
    while_leave_is_asked_for(&resumed, |state| {
        state.domain.as_mut().unwrap().state = RunState::Paused(PauseReason::Other);
    });
    let why = fault(&resumed, order.clone()).await;
    assert!(why.message.contains("is paused: Resume is not for it"), "{why}");
    resumed.set_domain(|domain| domain.state = STANDS);
    while_leave_is_asked_for(&resumed, starts_to_run);
    resumed.call::<()>(order).await.unwrap();
    let suspended = stage(RunState::Running, |_| None);
    while_leave_is_asked_for(&suspended, |state| state.domain.as_mut().unwrap().state = RunState::ShutOff);
    let why = fault(&suspended, ToCompute::SuspendGuest(suspended.of)).await;
    assert!(why.message.contains("is shut off: Suspend is not for it"), "{why}");
    for stage in [resumed, suspended] {
        assert!(stage.driver.state().actions.is_empty());
    }
}

#[tokio::test]
async fn a_debt_stops_an_unconfirmed_copy_that_runs_and_never_removes_it() {
    let stage = stage(RunState::Running, |stage| Some(stage.marker()));
    let order = || ToCompute::RollbackLiveMigrationAtDestination(stage.clean_up(BY_DEBT));
    for _ in 0..2 {
        let fault = fault(&stage, order()).await;
        assert!(fault.message.contains("domain g1 on h1 is suspended") && fault.message.contains("not removed"), "{fault}");
        assert_eq!(stage.driver.state().actions, [Action::Suspend]);
    }
    assert_eq!(stage.script.lock().unwrap().asked, [GrantKind::Suspend]);
}

#[tokio::test]
async fn a_running_copy_is_stopped_by_a_debt_only_with_leave_and_only_with_its_very_mark() {
    let refused = stage(RunState::Running, |stage| Some(stage.marker()));
    refused.script.lock().unwrap().refuses = true;
    fault(&refused, ToCompute::RollbackLiveMigrationAtDestination(refused.clean_up(BY_DEBT))).await;
    let open = stage(RunState::Running, |stage| Some(stage.marker()));
    let why = fault(&open, ToCompute::RollbackLiveMigrationAtDestination(open.clean_up(BY_MIGRATION))).await;
    assert!(why.message.contains("is running: it is not removed"), "the open migration has a verdict of its own: {why}");
    let later = stage(RunState::Running, |stage| Some(Marker { attempt: Attempt(9), ..stage.marker() }));
    later.call::<()>(ToCompute::RollbackLiveMigrationAtDestination(later.clean_up(BY_DEBT))).await.unwrap();
    for stage in [refused, open, later] {
        assert!(stage.driver.state().actions.is_empty());
    }
}

#[tokio::test]
async fn an_order_to_make_ready_that_comes_after_the_roll_back_makes_nothing() {
    let stage = Stage::new(|_, _, _| {});
    stage.driver.state().domain = None;
    let directory = std::env::temp_dir().join(format!("drover-agent-{}", stage.of.server));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("disk").to_str().unwrap().to_owned();
    let mut order = stage.with_data();
    order.data.disks = vec![copied("vda", &path)];
    let files = || std::fs::read_dir(&directory).unwrap().count();
    let mut clean_up = stage.clean_up(BY_MIGRATION);
    clean_up.data = order.data.clone();
    stage.call::<()>(ToCompute::PreLiveMigration(order.clone())).await.unwrap();
    assert_eq!(files(), 1);
    stage.call::<()>(ToCompute::RollbackLiveMigrationAtDestination(clean_up)).await.unwrap();
    assert_eq!(files(), 0);
    let late = fault(&stage, ToCompute::PreLiveMigration(order.clone())).await;
    assert!(late.message.contains("attempt 1 of migration 7 was rolled back on h1"), "{late}");
    assert_eq!(files(), 0);
    order.of.attempt = Attempt(2);
    stage.call::<()>(ToCompute::PreLiveMigration(order)).await.unwrap();
    assert_eq!(files(), 1);
    std::fs::remove_dir_all(&directory).unwrap();
}
