//! The decision, row by row of the table, and then against a model of the world.

use drover_common::ids::{Attempt, Incarnation, MigrationId};
use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::{CallState, GuestFacts, GuestState, HostFacts, JobKind, Marker};

use super::*;

#[path = "plan_model.rs"]
mod model;

const ID: MigrationId = MigrationId(7);
const ATTEMPT: Attempt = Attempt(1);

fn life() -> Incarnation {
    Incarnation(uuid::Uuid::from_u128(1))
}

fn view(status: MigrationStatus) -> View {
    View {
        id: ID,
        status,
        attempt: ATTEMPT,
        pre_done: true,
        casts: 1,
        start_granted: status.may_have_job().then(life),
        abort_requested: false,
        force_complete_requested: false,
        retries: 0,
        recoveries: 0,
        sends: true,
        connect_timeout_s: None,
        keep: None,
    }
}

fn seen(state: Option<GuestState>) -> Known {
    let marker = Some(Marker { migration: ID, attempt: ATTEMPT });
    Known::Seen(HostFacts {
        incarnation: life(),
        guest: state.map(|state| GuestFacts { state, persistent: true, marker }),
        job: None,
        call: CallState::ended(Some("it broke".to_owned())),
    })
}

fn facts(source: Known, destination: Known) -> Facts {
    Facts { source, destination, ordered: true }
}

fn unknown() -> Known {
    Known::Unknown("no answer".to_owned())
}

fn without_marker(known: Known) -> Known {
    let Known::Seen(mut facts) = known else { return known };
    if let Some(guest) = &mut facts.guest {
        guest.marker = None;
    }
    Known::Seen(facts)
}

/// The verdict table, for a migration that runs.
#[test]
fn each_row_of_the_verdict_table() {
    use GuestState::{Paused, PausedMigration, PausedPostCopyFailed, Running, RunningPostCopy, ShutOff};
    let (running, paused, waits, off) = (seen(Some(Running)), seen(Some(Paused)), seen(Some(PausedMigration)), seen(Some(ShutOff)));
    let (absent, post_copy) = (seen(None), seen(Some(RunningPostCopy)));
    let foreign_off = without_marker(off.clone());
    let failed = Next::RollBack { ending: Ending::Failed, why: "it broke".to_owned() };
    let table = [
        (&running, &absent, failed.clone()),
        (&running, &foreign_off, failed.clone()),
        (&running, &waits, failed.clone()),
        (&running, &unknown(), failed.clone()),
        (&paused, &absent, failed.clone()),
        (&absent, &running, Next::SwitchOver),
        (&off, &running, Next::SwitchOver),
        (&absent, &paused, Next::SwitchOver),
        (&waits, &running, Next::SwitchOver),
        (&seen(Some(PausedPostCopyFailed)), &running, Next::SwitchOver),
        (&Known::Gone, &running, Next::SwitchOver),
        (&waits, &absent, failed.clone()),
        (&waits, &waits, failed.clone()),
        (&waits, &Known::Gone, failed.clone()),
        (&running, &running, Next::Conflict { suspend: true }),
        (&running, &paused, Next::Conflict { suspend: false }),
        (&absent, &absent, Next::GuestLost),
        (&absent, &foreign_off, Next::GuestLost),
        (&Known::Gone, &absent, Next::GuestLost),
        (&Known::Gone, &waits, Next::GuestLost),
        (&absent, &off, Next::SwitchOver),
        (&off, &absent, failed.clone()),
    ];
    for (source, destination, expected) in table {
        let next = plan(&view(MigrationStatus::Running), &facts(source.clone(), destination.clone()));
        assert_eq!(next, expected, "source {source:?}, destination {destination:?}");
    }
    for (source, destination) in
        [(&waits, &unknown()), (&absent, &unknown()), (&unknown(), &running), (&post_copy, &running), (&waits, &post_copy)]
    {
        let next = plan(&view(MigrationStatus::Running), &facts(source.clone(), destination.clone()));
        assert!(matches!(next, Next::Wait { .. }), "source {source:?}, destination {destination:?}: {next:?}");
    }
    for (source, destination) in
        [(&absent, &waits), (&off, &waits), (&waits, &off), (&post_copy, &absent), (&post_copy, &Known::Gone)]
    {
        let next = plan(&view(MigrationStatus::Running), &facts(source.clone(), destination.clone()));
        assert!(matches!(next, Next::Undecidable(_)), "source {source:?}, destination {destination:?}: {next:?}");
    }
}

#[test]
fn an_operators_choice_ends_a_conflict_and_nothing_else() {
    let (running, paused) = (seen(Some(GuestState::Running)), seen(Some(GuestState::Paused)));
    let (absent, waits, off) = (seen(None), seen(Some(GuestState::PausedMigration)), seen(Some(GuestState::ShutOff)));
    for keep in [Keep::Source, Keep::Destination] {
        let chosen = View { keep: Some(keep), ..view(MigrationStatus::Running) };
        assert_eq!(plan(&chosen, &facts(running.clone(), paused.clone())), Next::Discard { keep });
        let unordered = Facts { ordered: false, ..facts(running.clone(), paused.clone()) };
        assert_eq!(plan(&chosen, &unordered), Next::Ask { destination: true, ordered: true });
        // Where there is nothing to choose the facts decide.
        assert_eq!(plan(&chosen, &facts(absent.clone(), running.clone())), Next::SwitchOver);
        assert!(matches!(plan(&chosen, &facts(running.clone(), absent.clone())), Next::RollBack { .. }));
    }
    let keep = |keep, source: &Known, destination: &Known| {
        plan(&View { keep: Some(keep), ..view(MigrationStatus::Running) }, &facts(source.clone(), destination.clone()))
    };
    assert!(matches!(keep(Keep::Source, &waits, &off), Next::RollBack { .. }));
    assert_eq!(keep(Keep::Destination, &waits, &off), Next::SwitchOver);
    assert!(matches!(keep(Keep::Source, &off, &waits), Next::RollBack { .. }));
    assert!(matches!(keep(Keep::Destination, &absent, &waits), Next::Undecidable(_)), "its state may not be whole");
}

#[test]
fn post_copy_that_was_granted_and_never_began_can_be_taken_back() {
    let granted = view(MigrationStatus::RunningPostCopy);
    let stayed = facts(seen(Some(GuestState::Running)), seen(None));
    assert!(matches!(plan(&granted, &stayed), Next::RollBack { ending: Ending::Failed, .. }));
    let with_job = |state| {
        let Known::Seen(facts) = seen(Some(state)) else { unreachable!() };
        Known::Seen(HostFacts { job: Some(JobKind::MigrationOut), call: CallState::InCall, ..facts })
    };
    let aborted = View { abort_requested: true, ..granted };
    let nudged = |state| match plan(&aborted, &facts(with_job(state), seen(None))) {
        Next::Wait { nudge, .. } => nudge,
        other => panic!("{other:?}"),
    };
    assert_eq!(nudged(GuestState::Running), Some(Nudge::Abort));
    assert_eq!(nudged(GuestState::PausedPostCopy), None, "the guest runs on the other side");
}

#[test]
fn a_post_copy_that_broke_is_gone_on_with_and_the_pauses_grow() {
    use GuestState::{PausedPostCopyFailed, RunningPostCopy, RunningPostCopyFailed};
    // libvirt keeps the job of a broken post-copy, on both sides.
    let keeps = |state, job| {
        let Known::Seen(facts) = seen(Some(state)) else { unreachable!() };
        Known::Seen(HostFacts { job: Some(job), ..facts })
    };
    let source = keeps(PausedPostCopyFailed, JobKind::MigrationOut);
    let row = |recoveries| View { recoveries, ..view(MigrationStatus::RunningPostCopy) };
    for waits in [RunningPostCopy, RunningPostCopyFailed] {
        let both = facts(source.clone(), keeps(waits, JobKind::MigrationIn));
        let pauses: Vec<u64> = (0..8)
            .map(|recoveries| match plan(&row(recoveries), &both) {
                Next::RecoverPostCopy { pause } => pause.as_secs(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
    let Known::Seen(in_call) = source.clone() else { unreachable!() };
    let in_call = Known::Seen(HostFacts { call: CallState::InCall, ..in_call });
    let both = facts(in_call, keeps(RunningPostCopy, JobKind::MigrationIn));
    assert!(matches!(plan(&row(0), &both), Next::Wait { .. }), "the call still waits for the destination to notice");
    assert!(matches!(plan(&row(0), &facts(source.clone(), seen(None))), Next::Undecidable(_)), "the destination's copy is gone");
    assert!(matches!(plan(&row(0), &facts(source, unknown())), Next::Wait { .. }));
}

#[test]
fn what_the_agent_took_back_by_itself_ends_cancelled_with_its_reason() {
    let Known::Seen(source) = seen(Some(GuestState::Running)) else { unreachable!() };
    let call = CallState::Ended { error: Some("canceled".to_owned()), taken_back: Some("it took too long".to_owned()) };
    let next = plan(&view(MigrationStatus::Running), &facts(Known::Seen(HostFacts { call, ..source }), seen(None)));
    assert_eq!(next, Next::RollBack { ending: Ending::Cancelled, why: "it took too long".to_owned() });
}

#[test]
fn an_abort_before_the_first_byte_says_how_long_libvirts_connect_may_take() {
    let Known::Seen(source) = seen(Some(GuestState::Running)) else { unreachable!() };
    let in_call = facts(Known::Seen(HostFacts { call: CallState::InCall, ..source }), Known::NotAsked);
    let waits = |sends, connect_timeout_s| {
        let row = View { abort_requested: true, sends, connect_timeout_s, ..view(MigrationStatus::Running) };
        match plan(&row, &in_call) {
            Next::Wait { why, nudge: Some(Nudge::Abort), .. } => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(waits(false, None).ends_with("libvirt's connect to the destination, at most 127 s"));
    assert!(waits(false, Some(31)).ends_with("libvirt's connect to the destination, at most 31 s"), "the source's kernel says so");
    assert!(waits(true, None).ends_with("libvirt's job to end"));
}

#[test]
fn every_decision_to_go_along_an_edge_is_legal() {
    use drover_common::migration::{Event, status};
    let states = [None, Some(GuestState::Running), Some(GuestState::Paused), Some(GuestState::PausedMigration)]
        .into_iter()
        .chain([GuestState::ShutOff, GuestState::PausedPostCopy, GuestState::RunningPostCopy].map(Some));
    let known: Vec<Known> = states.map(seen).chain([unknown(), Known::Gone, Known::NotAsked]).collect();
    for &status in MigrationStatus::ALL.iter().filter(|status| !status.is_final()) {
        for (source, destination) in known.iter().flat_map(|source| known.iter().map(move |destination| (source, destination))) {
            for abort_requested in [false, true] {
                let row = View { abort_requested, ..view(status) };
                let next = plan(&row, &facts(source.clone(), destination.clone()));
                let event = match &next {
                    Next::Cancel => Event::Aborted,
                    Next::TryLeaveQueue => Event::SlotFreed,
                    Next::RollBack { .. } => Event::RollBack,
                    Next::SwitchOver => Event::SwitchedOver,
                    Next::FinishPost => Event::Finished,
                    Next::FinishRollBack { .. } => Event::RolledBackFailed,
                    Next::GuestLost => Event::GuestLost,
                    _ => continue,
                };
                assert!(
                    status::next(status, event).is_some(),
                    "{status} {event:?}: source {source:?}, destination {destination:?}"
                );
            }
        }
    }
}

#[test]
fn neither_and_both_are_asked_for_in_order_before_they_count() {
    let running = seen(Some(GuestState::Running));
    for (source, destination) in [(running.clone(), running), (seen(None), seen(None))] {
        let unordered = Facts { source, destination, ordered: false };
        assert_eq!(plan(&view(MigrationStatus::Running), &unordered), Next::Ask { destination: true, ordered: true });
    }
}

#[test]
fn a_job_under_way_on_either_host_is_waited_for() {
    let with_job = |job| {
        let Known::Seen(facts) = seen(Some(GuestState::PausedMigration)) else { unreachable!() };
        Known::Seen(HostFacts { job: Some(job), call: CallState::Unseen, ..facts })
    };
    let out = facts(with_job(JobKind::MigrationOut), seen(None));
    assert!(matches!(plan(&view(MigrationStatus::Running), &out), Next::Wait { nudge: None, .. }));
    let inward = facts(seen(Some(GuestState::PausedMigration)), with_job(JobKind::MigrationIn));
    assert!(matches!(plan(&view(MigrationStatus::Running), &inward), Next::Wait { .. }));
    let aborted = View { abort_requested: true, ..view(MigrationStatus::Running) };
    assert!(matches!(plan(&aborted, &out), Next::Wait { nudge: Some(Nudge::Abort), .. }));
}

#[test]
fn an_aborted_job_ends_cancelled_and_a_restarted_agent_is_a_reason_to_try_again() {
    let stayed = facts(seen(Some(GuestState::Running)), seen(None));
    let aborted = View { abort_requested: true, ..view(MigrationStatus::Running) };
    assert!(matches!(plan(&aborted, &stayed), Next::RollBack { ending: Ending::Cancelled, .. }));
    let Known::Seen(source) = seen(Some(GuestState::Running)) else { unreachable!() };
    let newer = HostFacts { incarnation: Incarnation(uuid::Uuid::from_u128(2)), call: CallState::Unseen, ..source };
    let restarted = facts(Known::Seen(newer), seen(None));
    assert!(matches!(plan(&view(MigrationStatus::Running), &restarted), Next::RollBack { ending: Ending::Retry, .. }));
    let often = View { retries: RETRIES_MAX, ..view(MigrationStatus::Running) };
    assert!(matches!(plan(&often, &restarted), Next::RollBack { ending: Ending::Failed, .. }));
}

#[test]
fn before_the_grant_going_back_needs_nobodys_word() {
    let preparing = view(MigrationStatus::Preparing);
    assert_eq!(plan(&View { pre_done: false, ..preparing }, &Facts::NONE), Next::PreLiveMigration);
    assert_eq!(plan(&View { casts: 0, ..preparing }, &Facts::NONE), Next::Cast);
    assert_eq!(plan(&preparing, &Facts::NONE), Next::Ask { destination: false, ordered: false });
    let silent = facts(unknown(), Known::NotAsked);
    assert_eq!(plan(&preparing, &silent), Next::Cast);
    assert!(matches!(plan(&View { casts: 4, ..preparing }, &silent), Next::RollBack { ending: Ending::Failed, .. }));
    assert!(matches!(
        plan(&View { abort_requested: true, ..preparing }, &silent),
        Next::RollBack { ending: Ending::Cancelled, .. }
    ));
    let back = View { start_granted: None, ..view(MigrationStatus::RollingBack) };
    let unanswered = facts(unknown(), unknown());
    assert_eq!(plan(&back, &unanswered), Next::FinishRollBack { source: None, destination_answers: false });
}

#[test]
fn a_roll_back_destroys_the_waiting_copy_before_it_resumes_the_source() {
    let back = View { start_granted: Some(life()), ..view(MigrationStatus::RollingBack) };
    let (waits, absent, running) = (seen(Some(GuestState::PausedMigration)), seen(None), seen(Some(GuestState::Running)));
    assert_eq!(plan(&back, &facts(waits.clone(), waits.clone())), Next::DestroyDestination);
    assert_eq!(plan(&back, &facts(waits, absent.clone())), Next::ResumeSource);
    let done = Next::FinishRollBack { source: Some(GuestState::Running), destination_answers: true };
    assert_eq!(plan(&back, &facts(running.clone(), absent)), done);
    let owing = Next::FinishRollBack { source: Some(GuestState::Running), destination_answers: false };
    assert_eq!(plan(&back, &facts(running, unknown())), owing);
}
