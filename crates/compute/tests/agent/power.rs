//! Power actions: done once, with leave, and only to a guest that is as it was when leave was asked for.

use drover_common::bus::CallError;
use drover_common::fault::FaultClass;
use drover_common::ids::PowerActionId;
use drover_common::power::PowerAction;
use drover_common::rpc::latest::{DomainsReport, GuestState, JobKind, PowerOrder, PowerProgress, ToCompute};
use drover_compute::driver::{Action, PauseReason, RunState};

use super::fake::Stage;

const ID: PowerActionId = PowerActionId(9);

/// Gives the order once.
async fn once(stage: &Stage, id: PowerActionId, action: PowerAction) -> Result<PowerProgress, CallError> {
    stage.call(ToCompute::Power(PowerOrder { id, server: stage.of.server, action })).await
}

/// Gives it until it has ended, as the conductor does.
async fn until_ended(stage: &Stage, action: PowerAction) -> PowerProgress {
    loop {
        match once(stage, ID, action).await.unwrap() {
            PowerProgress::UnderWay => {}
            end => return end,
        }
    }
}

async fn done(stage: &Stage, action: PowerAction) -> DomainsReport {
    match until_ended(stage, action).await {
        PowerProgress::Done { report } => report,
        other => panic!("{action}: {other:?}"),
    }
}

async fn failed(stage: &Stage, action: PowerAction) -> String {
    match until_ended(stage, action).await {
        PowerProgress::Failed { fault, .. } => fault.message,
        other => panic!("{action}: {other:?}"),
    }
}

fn stage(state: RunState) -> Stage {
    let stage = Stage::new(|_, driver, _| driver.state().shuts_down = true);
    stage.set_domain(|domain| domain.state = state);
    stage
}

fn actions(stage: &Stage) -> Vec<Action> {
    stage.driver.state().actions.clone()
}

#[tokio::test]
async fn each_action_leaves_the_guest_as_it_is_meant_to_be_and_asks_for_leave_before_each_deed() {
    let paused = RunState::Paused(PauseReason::Other);
    for (before, action, deeds, after) in [
        (RunState::Running, PowerAction::Pause, vec![Action::Suspend], GuestState::Paused),
        (paused, PowerAction::Unpause, vec![Action::Resume], GuestState::Running),
        (RunState::ShutOff, PowerAction::Start, vec![Action::Start], GuestState::Running),
        (RunState::Running, PowerAction::Stop, vec![Action::Shutdown], GuestState::ShutOff),
        (RunState::Running, PowerAction::RebootSoft, vec![Action::Shutdown, Action::Start], GuestState::Running),
        (RunState::Running, PowerAction::RebootHard, vec![Action::Destroy, Action::Start], GuestState::Running),
        (RunState::ShutOff, PowerAction::RebootHard, vec![Action::Start], GuestState::Running),
    ] {
        let stage = stage(before);
        let report = done(&stage, action).await;
        assert_eq!((report.domains[0].state, actions(&stage)), (after, deeds.clone()), "{action}");
        assert_eq!(stage.script.lock().unwrap().asked_for_power, vec![ID; deeds.len()], "{action}");
    }
}

#[tokio::test]
async fn an_order_that_is_given_again_is_the_question_for_its_end() {
    let stage = stage(RunState::Running);
    let first = done(&stage, PowerAction::RebootHard).await;
    let again = done(&stage, PowerAction::RebootHard).await;
    assert_eq!(first, again);
    assert_eq!(actions(&stage), [Action::Destroy, Action::Start], "it is not rebooted twice");
    let next = once(&stage, PowerActionId(10), PowerAction::Pause).await.unwrap();
    assert!(matches!(next, PowerProgress::Done { .. }), "{next:?}");
    assert_eq!(once(&stage, ID, PowerAction::RebootHard).await.unwrap(), PowerProgress::UnderWay, "it comes late");
    assert_eq!(actions(&stage), [Action::Destroy, Action::Start, Action::Suspend]);
}

#[tokio::test]
async fn what_is_so_already_needs_no_leave() {
    for (state, action) in
        [(RunState::Running, PowerAction::Unpause), (RunState::Running, PowerAction::Start), (RunState::ShutOff, PowerAction::Stop)]
    {
        let stage = stage(state);
        done(&stage, action).await;
        assert!(actions(&stage).is_empty() && stage.script.lock().unwrap().asked_for_power.is_empty(), "{action}");
    }
    let gone = stage(RunState::Running);
    gone.driver.state().domain = None;
    let report = done(&gone, PowerAction::Delete).await;
    assert_eq!((report.domains.len(), report.gone), (0, vec![gone.of.server]));
    let other = stage(RunState::Running);
    other.driver.state().domain = None;
    assert!(failed(&other, PowerAction::Pause).await.contains("could not be found"));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_listen_is_told_again_and_ended_when_its_time_is_up() {
    for (action, last) in
        [(PowerAction::Stop, vec![Action::Destroy]), (PowerAction::RebootSoft, vec![Action::Destroy, Action::Start])]
    {
        let stage = stage(RunState::Running);
        stage.driver.state().shuts_down = false;
        let begin = tokio::time::Instant::now();
        done(&stage, action).await;
        assert!((60..65).contains(&begin.elapsed().as_secs()), "{action}: {:?}", begin.elapsed());
        let deeds = actions(&stage);
        let told = deeds.iter().filter(|deed| **deed == Action::Shutdown).count();
        assert_eq!((told, &deeds[told..]), (6, &last[..]), "{action}");
    }
}

#[tokio::test]
async fn a_delete_ends_the_guest_and_forgets_it() {
    for (persistent, deeds) in [(true, vec![Action::Destroy, Action::UndefineAll]), (false, vec![Action::Destroy])] {
        let stage = stage(RunState::Running);
        stage.set_domain(|domain| domain.persistent = persistent);
        let report = done(&stage, PowerAction::Delete).await;
        assert_eq!((report.gone, actions(&stage)), (vec![stage.of.server], deeds));
    }
}

#[tokio::test]
async fn without_leave_nothing_is_done() {
    for &action in PowerAction::ALL.iter().filter(|&&action| action != PowerAction::Start && action != PowerAction::Unpause) {
        let stage = stage(RunState::Running);
        stage.script.lock().unwrap().refuses = true;
        assert!(failed(&stage, action).await.contains("it is over"), "{action}");
        assert!(actions(&stage).is_empty(), "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_answer_to_the_request_for_leave_nothing_is_done_and_the_order_may_come_again() {
    let stage = stage(RunState::Running);
    stage.script.lock().unwrap().is_silent = true;
    let fault = loop {
        match once(&stage, ID, PowerAction::Pause).await {
            Ok(PowerProgress::UnderWay) => {}
            Err(CallError::Fault(fault)) => break fault,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fault.class, FaultClass::MessageDeliveryFailure, "{fault}");
    assert!(actions(&stage).is_empty());
    stage.script.lock().unwrap().is_silent = false;
    done(&stage, PowerAction::Pause).await;
    assert_eq!(actions(&stage), [Action::Suspend]);
}

#[tokio::test]
async fn a_guest_that_changes_while_leave_is_asked_for_is_looked_at_again() {
    let stage = stage(RunState::Running);
    stage.script.lock().unwrap().on_grant = Some(Box::new(|state| {
        if let Some(domain) = &mut state.domain {
            domain.state = RunState::Paused(PauseReason::Other);
        }
    }));
    done(&stage, PowerAction::Pause).await;
    assert!(actions(&stage).is_empty(), "its owner was quicker");
}

#[tokio::test]
async fn a_transient_guest_is_not_stopped() {
    for action in [PowerAction::Stop, PowerAction::RebootSoft, PowerAction::RebootHard] {
        let stage = stage(RunState::Running);
        stage.set_domain(|domain| domain.persistent = false);
        let why = failed(&stage, action).await;
        assert!(why.contains("domain g1 on h1 is running: it is transient"), "{why}");
        assert!(actions(&stage).is_empty());
    }
}

#[tokio::test]
async fn an_action_and_a_migration_are_never_at_work_on_one_guest() {
    let migrates = stage(RunState::Running);
    migrates.cast(migrates.order()).await;
    migrates.until(|state| !state.calls.is_empty()).await;
    assert_eq!(once(&migrates, ID, PowerAction::Stop).await.unwrap(), PowerProgress::UnderWay);
    assert!(actions(&migrates).is_empty());

    let stops = stage(RunState::Running);
    stops.driver.state().shuts_down = false;
    assert_eq!(once(&stops, ID, PowerAction::Stop).await.unwrap(), PowerProgress::UnderWay);
    stops.cast(stops.order()).await;
    let other = once(&stops, PowerActionId(10), PowerAction::Pause).await.unwrap();
    assert_eq!(other, PowerProgress::UnderWay, "one order at a time");
    assert!(stops.driver.state().calls.is_empty(), "no migration begins");

    let foreign = stage(RunState::Running);
    foreign.driver.set_job(Some(JobKind::MigrationOut), 1);
    assert!(failed(&foreign, PowerAction::Delete).await.contains("libvirt works on it"));
    assert!(actions(&foreign).is_empty());
}
