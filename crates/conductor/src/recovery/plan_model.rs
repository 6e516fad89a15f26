//! A model of two hosts, libvirt's migration protocol and everything that may go wrong; [`plan`] is run against it.
//!
//! What a drive does is done to the model; between two decisions anything may happen: the copy goes on, fails, loses its last
//! answer; agents die and come back; a QEMU is killed; an operator aborts. Then what must never be is looked for, and once nothing
//! more goes wrong, that the migration ends, and that its status is the truth.

use proptest::prelude::*;

use super::*;

/// One host's copy of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    None,
    Runs,
    /// Because of the migration.
    Stands,
    /// We stopped it, since both ran.
    Suspended,
}

/// How far libvirt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    None,
    Copying,
    /// The source stands, the destination gets the last pages.
    SwitchingOver,
    /// The destination runs; the source has not been told.
    Confirming,
}

/// Each bool is a fact of its own, as the rows of the verdict table are.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state machine")]
#[derive(Debug, Clone)]
struct World {
    source: Copy,
    destination: Copy,
    job: Job,
    /// The destination has the guest's whole state.
    complete: bool,
    source_answers: bool,
    destination_answers: bool,
    source_life: u128,
    call: CallState,
    row: View,
    /// The guest's copies that were destroyed while they ran, by us.
    killed_running: bool,
    /// It was closed although both copies were seen to run.
    hushed_up: bool,
    /// The source was told to go on while the destination ran, by us.
    doubled: bool,
    /// The source went on by itself although the destination may have run.
    forked: bool,
}

/// What may happen between two decisions.
#[derive(Debug, Clone, Copy)]
enum Fate {
    JobAdvances,
    JobFails,
    LastAnswerLost,
    LateFinish,
    SourceAgentRestarts,
    SourceLibvirtdRestarts,
    DestinationLibvirtdRestarts,
    SourceUnreachable,
    DestinationUnreachable,
    BothReachable,
    DestinationQemuDies,
    OperatorAborts,
}

const FATES: &[Fate] = &[
    Fate::JobAdvances,
    Fate::JobAdvances,
    Fate::JobAdvances,
    Fate::JobAdvances,
    Fate::BothReachable,
    Fate::BothReachable,
    Fate::JobFails,
    Fate::LastAnswerLost,
    Fate::LateFinish,
    Fate::SourceAgentRestarts,
    Fate::SourceLibvirtdRestarts,
    Fate::DestinationLibvirtdRestarts,
    Fate::SourceUnreachable,
    Fate::DestinationUnreachable,
    Fate::BothReachable,
    Fate::DestinationQemuDies,
    Fate::OperatorAborts,
];

impl World {
    fn new() -> Self {
        Self {
            source: Copy::Runs,
            destination: Copy::None,
            job: Job::None,
            complete: false,
            source_answers: true,
            destination_answers: true,
            source_life: 1,
            call: CallState::Unseen,
            row: View { pre_done: false, casts: 0, start_granted: None, ..view(MigrationStatus::Preparing) },
            killed_running: false,
            doubled: false,
            hushed_up: false,
            forked: false,
        }
    }

    fn suffer(&mut self, fate: Fate) {
        match fate {
            Fate::JobAdvances => self.job_advances(),
            Fate::JobFails => self.job_fails(),
            Fate::LastAnswerLost if self.job == Job::Confirming => {
                // libvirt's source cannot know and resumes: the one way to two running copies.
                self.source = Copy::Runs;
                self.forked = true;
                self.end_job(Some("lost"));
            }
            Fate::LastAnswerLost => {}
            // The source's libvirtd died after its last page: the destination's may still start the guest.
            Fate::LateFinish if self.job == Job::None && self.destination == Copy::Stands && self.complete => {
                self.destination = Copy::Runs;
                self.doubled |= self.source == Copy::Runs && !self.forked;
            }
            Fate::LateFinish => {}
            Fate::SourceAgentRestarts => {
                self.source_life += 1;
                self.call = CallState::Unseen; // The job goes on: it belongs to libvirtd.
            }
            // In the copy it cancels the job; after it, the guest is left standing, and the destination's copy as it is.
            Fate::SourceLibvirtdRestarts if self.job == Job::Copying => self.job_fails(),
            Fate::SourceLibvirtdRestarts => self.end_job(Some("libvirtd went away")),
            Fate::DestinationLibvirtdRestarts if self.destination == Copy::Stands && self.job == Job::None => {
                self.destination = Copy::None;
            }
            Fate::DestinationLibvirtdRestarts => self.job_fails(),
            Fate::SourceUnreachable => self.source_answers = false,
            Fate::DestinationUnreachable => self.destination_answers = false,
            Fate::BothReachable => (self.source_answers, self.destination_answers) = (true, true),
            Fate::DestinationQemuDies if matches!(self.job, Job::Copying | Job::SwitchingOver) => self.job_fails(),
            Fate::DestinationQemuDies => {}
            Fate::OperatorAborts => self.row.abort_requested = true,
        }
    }

    fn job_advances(&mut self) {
        match self.job {
            Job::None => {}
            Job::Copying => (self.job, self.source, self.complete) = (Job::SwitchingOver, Copy::Stands, true),
            Job::SwitchingOver => (self.job, self.destination) = (Job::Confirming, Copy::Runs),
            Job::Confirming => {
                self.source = Copy::None;
                self.end_job(None);
            }
        }
    }

    fn job_fails(&mut self) {
        if matches!(self.job, Job::Copying | Job::SwitchingOver) {
            (self.source, self.destination, self.complete) = (Copy::Runs, Copy::None, false);
            self.end_job(Some("failed"));
        }
    }

    fn end_job(&mut self, error: Option<&str>) {
        self.job = Job::None;
        if self.call == CallState::InCall {
            self.call = CallState::ended(error.map(ToOwned::to_owned));
        }
    }

    fn see(&self, copy: Copy, answers: bool, source: bool) -> Known {
        if !answers {
            return unknown();
        }
        let state = match copy {
            Copy::None => None,
            Copy::Runs => Some(GuestState::Running),
            Copy::Stands => Some(GuestState::PausedMigration),
            Copy::Suspended => Some(GuestState::Paused),
        };
        let Known::Seen(facts) = seen(state) else { unreachable!() };
        let job = match (self.job, source) {
            (Job::None, _) => None,
            (_, true) => Some(JobKind::MigrationOut),
            (_, false) => Some(JobKind::MigrationIn),
        };
        let call = if source { self.call.clone() } else { CallState::Unseen };
        Known::Seen(HostFacts { incarnation: Incarnation(uuid::Uuid::from_u128(self.source_life)), job, call, ..facts })
    }

    fn ask(&self, ordered: bool) -> Facts {
        Facts {
            source: self.see(self.source, self.source_answers, true),
            destination: self.see(self.destination, self.destination_answers, false),
            ordered,
        }
    }

    /// Decides until there is nothing to do but wait; `false` once it is closed.
    fn drive(&mut self) -> bool {
        let mut facts = Facts::NONE;
        for _ in 0..20 {
            let next = plan(&self.row, &facts);
            if let Next::Ask { ordered, .. } = next {
                facts = self.ask(ordered);
                continue;
            }
            if !self.act(&next) {
                return false;
            }
            let lets_go = matches!(next, Next::Wait { .. } | Next::Cast | Next::Conflict { .. } | Next::Undecidable(_));
            let unheard = !self.source_answers || !self.destination_answers;
            let lets_go = lets_go || (unheard && matches!(next, Next::Discard { .. }));
            if lets_go || next == Next::PreLiveMigration {
                return true;
            }
            facts = Facts::NONE;
        }
        panic!("goes round in circles: {self:?}");
    }

    fn act(&mut self, next: &Next) -> bool {
        match next {
            Next::PreLiveMigration if self.destination_answers => (self.row.pre_done, self.row.casts) = (true, 1),
            Next::PreLiveMigration => self.begin_roll_back(Ending::Failed),
            Next::Cast => self.row.casts += 1,
            Next::Wait { nudge: Some(Nudge::Abort), .. } if self.source_answers && self.job == Job::Copying => self.job_fails(),
            Next::Wait { .. } => {}
            Next::Conflict { suspend } => {
                if *suspend && self.destination_answers {
                    self.destination = Copy::Suspended;
                }
            }
            Next::Discard { keep: Keep::Source } if self.destination_answers => self.destination = Copy::None,
            Next::Discard { keep: Keep::Destination } if self.source_answers => self.source = Copy::None,
            Next::Discard { .. } => {}
            Next::RollBack { ending, .. } => self.begin_roll_back(*ending),
            Next::SwitchOver => self.row.status = MigrationStatus::PostMigrating,
            Next::FinishPost => {
                // It ends with the source's copy destroyed: that may not be one that runs, whoever let it.
                self.killed_running |= self.source == Copy::Runs;
                self.row.status = MigrationStatus::Completed;
                return false;
            }
            Next::DestroyDestination => {
                self.killed_running |= self.destination == Copy::Runs;
                self.destination = Copy::None;
            }
            Next::ResumeSource => {
                // Not even while the destination's stands: a late finish could start it.
                self.doubled |= self.destination != Copy::None;
                self.source = Copy::Runs;
            }
            Next::FinishRollBack { .. } => {
                // Where both are known to run, nobody may close it as if nothing were.
                let there = matches!(self.destination, Copy::Runs | Copy::Suspended);
                self.hushed_up |= self.source_answers && self.destination_answers && there;
                // The agent destroys a copy that stands for a migration, and refuses to touch one that runs.
                if self.destination_answers && self.destination == Copy::Stands {
                    self.destination = Copy::None;
                }
                self.row.status = MigrationStatus::Failed;
                return false;
            }
            Next::GuestLost => {
                self.row.status = MigrationStatus::Error;
                return false;
            }
            Next::Undecidable(_) => {}
            Next::Precheck | Next::Cancel | Next::TryLeaveQueue | Next::Ask { .. } | Next::RecoverPostCopy { .. } => {
                unreachable!("{next:?}")
            }
        }
        true
    }

    fn begin_roll_back(&mut self, _ending: Ending) {
        self.row.status = MigrationStatus::RollingBack;
    }

    /// The source's agent does what it was told: it asks for its grant and calls libvirt.
    fn source_agent_acts(&mut self) {
        let willing = self.source_answers && self.row.casts > 0 && self.call == CallState::Unseen;
        if willing && self.row.status == MigrationStatus::Preparing && !self.row.abort_requested {
            self.row.status = MigrationStatus::Running;
            self.row.start_granted = Some(Incarnation(uuid::Uuid::from_u128(self.source_life)));
            (self.job, self.call, self.destination) = (Job::Copying, CallState::InCall, Copy::Stands);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_wrong_the_guest_is_never_killed_and_the_record_becomes_true(
        fates in proptest::collection::vec((proptest::sample::select(FATES), any::<bool>()), 0..30),
        choice in proptest::sample::select(vec![Keep::Source, Keep::Destination]),
    ) {
        let mut world = World::new();
        let mut open = true;
        for (fate, drive) in fates {
            world.suffer(fate);
            world.source_agent_acts();
            if drive && open {
                open = world.drive();
            }
            prop_assert!(!world.killed_running && !world.doubled && !world.hushed_up, "{world:?}");
        }
        // From here nothing more goes wrong.
        for _ in 0..20 {
            (world.source_answers, world.destination_answers) = (true, true);
            world.source_agent_acts();
            if !open { break }
            open = world.drive();
            world.job_advances();
        }
        prop_assert!(!world.killed_running && !world.doubled && !world.hushed_up, "{world:?}");
        let conflict = world.forked && world.source == Copy::Runs && world.destination != Copy::None;
        prop_assert!(!open || conflict, "it never ends: {world:?}");
        if open {
            world.row.keep = Some(choice);
            for _ in 0..3 {
                open = open && world.drive();
            }
            prop_assert!(!open, "an operator's choice does not end it: {world:?}");
        }
        if !conflict {
            let whole = usize::from(world.source == Copy::Runs) + usize::from(world.destination == Copy::Runs);
            prop_assert!(whole == 1 || world.forked, "{world:?}");
            match world.row.status {
                MigrationStatus::Completed => prop_assert_eq!(world.destination, Copy::Runs),
                MigrationStatus::Failed => prop_assert_eq!(world.source, Copy::Runs),
                other => prop_assert!(false, "ended {other}: {world:?}"),
            }
        }
    }
}
