//! What to do next with a migration: THE decision, pure.
//!
//! In: the row, and what source and destination say of the guest, asked after the row's last change. Out: one action. A job under
//! way on either host is waited for; with none, the table below decides. *Unknown* is a fact of its own: a host
//! that does not answer proves nothing, only an operator's `force-down` declares it gone ([`Known::Gone`]).
//!
//! ```text
//! source              destination         verdict
//! holds the guest     nothing             go back
//! holds the guest     waits for its state go back (destroys the destination's)
//! nothing, shut off   holds the guest     switched over
//! waits               holds the guest     switched over (destroys the source's)
//! waits               nothing             go back (resumes the source)
//! waits               waits               go back (destroys the destination's, then resumes the source)
//! waits               unknown             wait
//! holds               holds               conflict: suspend the destination's, destroy neither; an operator chooses
//! post-copy           nothing             undecidable: neither side alone is a whole guest
//! post-copy, broken   post-copy           the source is told to go on, with pauses that grow
//! post-copy on either side                forward only
//! nothing             nothing             lost
//! ```
//!
//! *Adding a rule:* an arm in [`verdict`], a line above, a row in the test's table; the model test then runs it against the world.

use std::time::Duration;

use drover_common::ids::{Attempt, Incarnation, MigrationId};
use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::{CallState, GuestState, HostFacts, JobKind, Marker};
use drover_store::migrations::{Ending, Migration};

/// What is known of one host's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nobody asked since the row's last change.
    NotAsked,
    /// It was asked and did not answer; why.
    Unknown(String),
    /// An operator asserts that the host is fenced (`force-down`) and it does not answer.
    Gone,
    /// It said this.
    Seen(HostFacts),
}

/// What is known of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The source's side.
    pub source: Known,
    /// The destination's side.
    pub destination: Known,
    /// Whether they were asked source, destination, source, and the source said the same twice: only then do "neither" and "both"
    /// mean anything, since a guest may cross between two questions.
    pub ordered: bool,
}

impl Facts {
    /// Nothing is known.
    pub const NONE: Self = Self { source: Known::NotAsked, destination: Known::NotAsked, ordered: false };
}

/// What of the row the decision needs.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, as they stand on the row")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Its id.
    pub id: MigrationId,
    /// Where it is.
    pub status: MigrationStatus,
    /// The attempt whose traces are looked for.
    pub attempt: Attempt,
    /// Whether the destination made itself ready.
    pub pre_done: bool,
    /// How often the source was told to start.
    pub casts: i32,
    /// Which life of the source's agent may have started the job.
    pub start_granted: Option<Incarnation>,
    /// Somebody wants it to end.
    pub abort_requested: bool,
    /// Somebody wants it to end on the destination now.
    pub force_complete_requested: bool,
    /// How often it was tried again after a roll-back.
    pub retries: i32,
    /// How often the source was told to go on with a post-copy that broke.
    pub recoveries: i32,
    /// Whether libvirt has sent anything yet.
    pub sends: bool,
    /// How long the source's kernel lets libvirt wait for its connection to the destination, seconds; none: its agent does not say.
    pub connect_timeout_s: Option<u32>,
    /// Whose copy an operator chose.
    pub keep: Option<Keep>,
}

/// An operator's choice between two copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The source's is the guest.
    Source,
    /// The destination's is.
    Destination,
}

impl View {
    /// The view of a row.
    pub fn of(row: &Migration) -> Self {
        // The decision to roll back takes the next number, so that the old one is refused everything; what is looked for is what
        // the old one did.
        let behind = i32::from(row.status == MigrationStatus::RollingBack);
        Self {
            id: row.id,
            status: row.status,
            attempt: Attempt(row.attempt.0 - behind),
            pre_done: row.pre_done,
            casts: row.casts,
            start_granted: row.start_incarnation,
            abort_requested: row.abort_requested_by.is_some(),
            force_complete_requested: row.force_complete_requested_by.is_some(),
            retries: row.retries,
            recoveries: row.recoveries,
            sends: row.progress.is_some(),
            connect_timeout_s: row.data.as_ref().and_then(|data| data.connect_timeout_s),
            keep: match &row.keep {
                None => None,
                Some(host) if *host == row.source => Some(Keep::Source),
                Some(_) => Some(Keep::Destination),
            },
        }
    }
}

/// The next action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Check, choose a destination, claim.
    Precheck,
    /// End it: nothing is held.
    Cancel,
    /// Look whether a slot is free, and start again if so.
    TryLeaveQueue,
    /// Let the destination make itself ready.
    PreLiveMigration,
    /// Tell the source to start.
    Cast,
    /// Post-copy broke, and both copies wait: tell the source to go on.
    RecoverPostCopy {
        /// The pause before the try.
        pause: Duration,
    },
    /// Ask these hosts; `ordered`: source, destination, source.
    Ask {
        /// The destination too.
        destination: bool,
        /// In that order, one after the other.
        ordered: bool,
    },
    /// Let go until something happens, or this long.
    Wait {
        /// For people.
        why: String,
        /// When to look again.
        look_again_in: Duration,
        /// Remind the source's agent of a request first.
        nudge: Option<Nudge>,
    },
    /// Nothing new may start; both sides go back.
    RollBack {
        /// To end in this.
        ending: Ending,
        /// For people.
        why: String,
    },
    /// The guest is on the destination.
    SwitchOver,
    /// Let both hosts finish, then close.
    FinishPost,
    /// Remove what is on the destination (or leave it as a debt), then close; the source holds the guest, in this state.
    FinishRollBack {
        /// None if nothing was ever started, so that nobody had to ask.
        source: Option<GuestState>,
        /// Whether the destination can be told now.
        destination_answers: bool,
    },
    /// Remove the copy on the destination that waits for its state: only then may the source's go on.
    DestroyDestination,
    /// Let the source's copy go on.
    ResumeSource,
    /// Both run: stop the destination's copy if it runs, raise a finding, wait for an operator.
    Conflict {
        /// Whether the destination's copy still runs.
        suspend: bool,
    },
    /// Both have a copy, and an operator chose this one: remove the other.
    Discard {
        /// The copy that stays.
        keep: Keep,
    },
    /// Nobody can tell where the guest is whole: raise a finding, wait.
    Undecidable(String),
    /// The guest is nowhere.
    GuestLost,
}

/// A request that the agent may have missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nudge {
    /// Abort.
    Abort,
    /// Force completion.
    ForceComplete,
}

/// Times that `live_migration` is cast before the source counts as unwilling.
const CASTS_MAX: i32 = 4;
/// Times that a migration is tried again after a roll-back that was nobody's wish.
pub const RETRIES_MAX: i32 = 2;
/// While an answer is expected any moment.
const SOON: Duration = Duration::from_secs(1);
/// While an agent must act: it is asked when this long nothing was heard.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to go on with a post-copy: the first one, which doubles, and the longest.
const RECOVER_FIRST: Duration = Duration::from_secs(1);
const RECOVER_LAST: Duration = Duration::from_secs(30);
/// libvirt waits for its connection to the destination as long as the kernel tries, and cannot be told to stop meanwhile. This is
/// Linux' default, where the source's agent did not say.
const CONNECT_TIMEOUT_S: u32 = 127;
/// While a job runs: its agent reports every few seconds, each report puts this off.
const JOB: Duration = Duration::from_secs(30);

/// Decides.
pub fn plan(row: &View, facts: &Facts) -> Next {
    match row.status {
        MigrationStatus::Accepted if row.abort_requested => Next::Cancel,
        MigrationStatus::Accepted => Next::Precheck,
        MigrationStatus::Queued if row.abort_requested => Next::Cancel,
        MigrationStatus::Queued => Next::TryLeaveQueue,
        MigrationStatus::Preparing => preparing(row, facts),
        MigrationStatus::Running | MigrationStatus::RunningPostCopy => started(row, facts),
        MigrationStatus::RollingBack => rolling_back(row, facts),
        MigrationStatus::PostMigrating => Next::FinishPost,
        MigrationStatus::Completed | MigrationStatus::Failed | MigrationStatus::Cancelled | MigrationStatus::Error => {
            wait("it is closed", JOB)
        }
    }
}

/// Nothing was granted: the guest is untouched, so going back is always safe.
fn preparing(row: &View, facts: &Facts) -> Next {
    if row.abort_requested {
        return Next::RollBack { ending: Ending::Cancelled, why: "aborted by request".to_owned() };
    }
    if !row.pre_done {
        return Next::PreLiveMigration;
    }
    if row.casts == 0 {
        return Next::Cast;
    }
    let silent = |why: &str| {
        if row.casts < CASTS_MAX {
            Next::Cast
        } else {
            Next::RollBack { ending: Ending::Failed, why: format!("the source's agent did not take it up: {why}") }
        }
    };
    match &facts.source {
        Known::NotAsked => Next::Ask { destination: false, ordered: false },
        Known::Unknown(why) => silent(why),
        Known::Gone => Next::RollBack { ending: Ending::Failed, why: "the source host is forced down".to_owned() },
        Known::Seen(source) => match source.call {
            CallState::Unseen => silent("it has not heard of it"),
            CallState::Pending | CallState::InCall | CallState::Attached | CallState::Ended { .. } => {
                wait("the source's agent to start", PATIENCE)
            }
        },
    }
}

/// libvirt may have, or have had, a job.
fn started(row: &View, facts: &Facts) -> Next {
    let (source, destination) = (&facts.source, &facts.destination);
    if let Known::Seen(seen) = source
        && let Some(next) = under_way(row, seen)
    {
        return next;
    }
    if matches!((source, destination), (Known::NotAsked, _) | (_, Known::NotAsked)) {
        return Next::Ask { destination: true, ordered: false };
    }
    match verdict(row, facts) {
        Verdict::GoBack { .. } => back_to_source(row, source),
        Verdict::SwitchedOver => Next::SwitchOver,
        Verdict::Open(next) => next,
    }
}

/// Whether the source's agent or its libvirt is still at it. While a wish is open it is told again and again: a nudge may be lost.
fn under_way(row: &View, source: &HostFacts) -> Option<Next> {
    let post_copy = row.status == MigrationStatus::RunningPostCopy;
    // Granted is not begun: as long as the guest runs here, the job can be taken back.
    let begun = post_copy && !source.guest.as_ref().is_some_and(|guest| guest.state == GuestState::Running);
    let nudge = match (row.abort_requested, row.force_complete_requested) {
        (true, _) if !begun => Some(Nudge::Abort),
        (_, true) if !post_copy => Some(Nudge::ForceComplete),
        _ => None,
    };
    let look_again_in = if nudge.is_some() { PATIENCE } else { JOB };
    let at_it = matches!(source.call, CallState::Pending | CallState::InCall);
    if broke(source) {
        // The job stays and nobody works on it, unless libvirt's call still waits for the other side to notice.
        let why = "post-copy broke; the destination's libvirt to notice, too".to_owned();
        return at_it.then_some(Next::Wait { why, look_again_in: PATIENCE, nudge: None });
    }
    let why = match nudge {
        Some(Nudge::Abort) if !row.sends => {
            let most = row.connect_timeout_s.unwrap_or(CONNECT_TIMEOUT_S);
            format!("an abort was asked for: libvirt's connect to the destination, at most {most} s")
        }
        Some(Nudge::Abort) => "an abort was asked for: libvirt's job to end".to_owned(),
        _ => "libvirt's job".to_owned(),
    };
    let job = source.job == Some(JobKind::MigrationOut) || at_it;
    job.then_some(Next::Wait { why, look_again_in, nudge })
}

/// Whether the source's copy is one whose post-copy broke.
fn broke(source: &HostFacts) -> bool {
    source.guest.as_ref().is_some_and(|guest| guest.state == GuestState::PausedPostCopyFailed)
}

/// How long to wait before the next try to go on with a post-copy.
fn recover_after(recoveries: i32) -> Duration {
    let doublings = u32::try_from(recoveries).unwrap_or(0).min(10);
    RECOVER_FIRST.saturating_mul(1 << doublings).min(RECOVER_LAST)
}

/// The guest is on the source and no job is left: why, and what to make of it.
fn back_to_source(row: &View, source: &Known) -> Next {
    let (ending, why) = match source {
        Known::Seen(seen) => match &seen.call {
            _ if row.abort_requested => (Ending::Cancelled, "aborted by request".to_owned()),
            CallState::Ended { taken_back: Some(why), .. } => (Ending::Cancelled, why.clone()),
            CallState::Ended { error: Some(error), .. } => (Ending::Failed, error.clone()),
            CallState::Ended { error: None, .. } => {
                (Ending::Failed, "libvirt reported success, but the guest is still on the source".to_owned())
            }
            CallState::Unseen if row.retries < RETRIES_MAX && row.start_granted != Some(seen.incarnation) => {
                (Ending::Retry, "the source's agent was restarted before libvirt's job began, or the job ended unseen".to_owned())
            }
            _ => (Ending::Failed, "libvirt's job ended while nobody watched it".to_owned()),
        },
        _ => (Ending::Failed, "the source holds the guest".to_owned()),
    };
    Next::RollBack { ending, why }
}

fn rolling_back(row: &View, facts: &Facts) -> Next {
    if row.start_granted.is_none() {
        // Nothing was ever started: the source's guest is as it was, whether its agent answers or not.
        return match facts.destination {
            Known::NotAsked => Next::Ask { destination: true, ordered: false },
            ref destination => Next::FinishRollBack { source: None, destination_answers: matches!(destination, Known::Seen(_)) },
        };
    }
    if let Known::Seen(seen) = &facts.source
        && seen.job == Some(JobKind::MigrationOut)
    {
        return Next::Wait { why: "libvirt's job to end".to_owned(), look_again_in: SOON, nudge: Some(Nudge::Abort) };
    }
    if matches!((&facts.source, &facts.destination), (Known::NotAsked, _) | (_, Known::NotAsked)) {
        return Next::Ask { destination: true, ordered: false };
    }
    match verdict(row, facts) {
        Verdict::GoBack { source: Side::Waits, destination: Side::Waits } => Next::DestroyDestination,
        Verdict::GoBack { source: Side::Waits, .. } => Next::ResumeSource,
        Verdict::GoBack { .. } => Next::FinishRollBack {
            source: match &facts.source {
                Known::Seen(HostFacts { guest: Some(guest), .. }) => Some(guest.state),
                _ => None,
            },
            destination_answers: matches!(facts.destination, Known::Seen(_)),
        },
        Verdict::SwitchedOver => Next::SwitchOver,
        Verdict::Open(next) => next,
    }
}

/// One host's side, as the table sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// It does not answer.
    Unknown,
    /// It is declared gone.
    Gone,
    /// No domain.
    Absent,
    /// A definition, no QEMU.
    Off {
        /// Brought here by this very attempt: the guest ran here and went off.
        ours: bool,
    },
    /// The guest is whole here: it runs, or stands for reasons of its own.
    Holds {
        /// It runs.
        running: bool,
    },
    /// A QEMU that stands because of a migration.
    Waits,
    /// Post-copy, in whichever phase.
    PostCopy {
        /// The source's stands because its stream broke. (The destination's may not know yet.)
        broke: bool,
    },
    /// libvirt is at it.
    Busy,
}

impl Side {
    fn of(known: &Known, row: &View) -> Self {
        let facts = match known {
            Known::NotAsked | Known::Unknown(_) => return Self::Unknown,
            Known::Gone => return Self::Gone,
            Known::Seen(facts) => facts,
        };
        let failed = [Some(GuestState::PausedPostCopyFailed), Some(GuestState::RunningPostCopyFailed)];
        let state = facts.guest.as_ref().map(|guest| guest.state);
        if matches!(facts.job, Some(JobKind::MigrationIn | JobKind::MigrationOut)) && !failed.contains(&state) {
            return Self::Busy;
        }
        let Some(guest) = &facts.guest else { return Self::Absent };
        let mark = Marker { migration: row.id, attempt: row.attempt };
        match guest.state {
            GuestState::ShutOff | GuestState::Crashed => Self::Off { ours: guest.marker == Some(mark) },
            GuestState::Running => Self::Holds { running: true },
            GuestState::Paused | GuestState::Suspended => Self::Holds { running: false },
            GuestState::PausedMigration => Self::Waits,
            GuestState::RunningPostCopy | GuestState::RunningPostCopyFailed | GuestState::PausedPostCopy => {
                Self::PostCopy { broke: false }
            }
            GuestState::PausedPostCopyFailed => Self::PostCopy { broke: true },
        }
    }
}

enum Verdict {
    /// The source has it, or can have it again.
    GoBack { source: Side, destination: Side },
    /// The destination has it.
    SwitchedOver,
    /// Neither can be said yet.
    Open(Next),
}

/// The table.
fn verdict(row: &View, facts: &Facts) -> Verdict {
    use Side::{Absent, Busy, Gone, Holds, Off, PostCopy, Unknown, Waits};
    let (source, destination) = (Side::of(&facts.source, row), Side::of(&facts.destination, row));
    let go_back = Verdict::GoBack { source, destination };
    let in_order = |verdict| if facts.ordered { verdict } else { Verdict::Open(Next::Ask { destination: true, ordered: true }) };
    let open = |next| in_order(Verdict::Open(next));
    match (source, destination) {
        (PostCopy { broke: true }, PostCopy { .. } | Busy) => {
            Verdict::Open(Next::RecoverPostCopy { pause: recover_after(row.recoveries) })
        }
        // It broke on its last word: libvirt calls a guest whole only when all its pages are there.
        (PostCopy { broke: true }, Holds { .. }) => in_order(Verdict::SwitchedOver),
        (Busy, _) | (_, Busy) => Verdict::Open(wait("libvirt to finish", SOON)),
        (PostCopy { .. }, Absent | Gone) => open(Next::Undecidable(POST_COPY_BROKE.to_owned())),
        (PostCopy { .. }, _) | (_, PostCopy { .. }) => {
            Verdict::Open(wait("post-copy to finish: neither side alone is a whole guest", PATIENCE))
        }
        // Its job is over and it runs: it is set free; what the destination still owes becomes a debt.
        (Holds { .. }, Absent | Off { .. } | Waits | Unknown | Gone) => go_back,
        (Holds { running }, Holds { running: on_destination }) => open(match row.keep {
            None => Next::Conflict { suspend: running && on_destination },
            Some(keep) => Next::Discard { keep },
        }),
        (Absent | Off { .. } | Waits | Gone, Holds { .. }) => Verdict::SwitchedOver,
        (Waits, Absent | Off { ours: false } | Waits | Gone) => go_back,
        (Waits, Off { ours: true }) if row.keep == Some(Keep::Source) => in_order(go_back),
        (Waits, Off { ours: true }) if row.keep == Some(Keep::Destination) => in_order(Verdict::SwitchedOver),
        (Waits, Off { ours: true }) => open(Next::Undecidable(IT_MAY_HAVE_RUN_THERE.to_owned())),
        (Absent | Off { .. } | Gone, Off { ours: true }) => in_order(Verdict::SwitchedOver), // It got there, and then went off.
        (Off { .. }, Absent | Off { ours: false } | Gone) => in_order(go_back),              // It went off before it got there.
        (Absent | Gone, Absent | Off { ours: false } | Gone) => open(Next::GuestLost),
        (Gone, Waits) => open(Next::GuestLost),
        (Off { .. }, Waits) if row.keep == Some(Keep::Source) => in_order(go_back),
        (Absent | Off { .. }, Waits) => open(Next::Undecidable(ITS_STATE_MAY_BE_THERE.to_owned())),
        (Unknown, _) => Verdict::Open(silent("source", &facts.source)),
        (_, Unknown) => Verdict::Open(silent("destination", &facts.destination)),
    }
}

const POST_COPY_BROKE: &str = "the guest ran on the destination while its memory still came, and is there no more; the source's \
                               copy lacks what the guest wrote since, and is left as it is: remove it to have the guest declared lost";
const IT_MAY_HAVE_RUN_THERE: &str = "the destination has the guest's definition but no QEMU, the source's copy stands: the guest may have \
                                     run on the destination and gone off there, or never have got there";
const ITS_STATE_MAY_BE_THERE: &str = "the source has no running copy, the destination's stands: whether it got the guest's whole state \
                                      is not known";

fn silent(which: &str, known: &Known) -> Next {
    let why = if let Known::Unknown(why) = known { why.as_str() } else { "it was not asked" };
    wait(format!("the {which} host to answer (force-down declares it gone): {why}"), PATIENCE)
}

fn wait(why: impl Into<String>, look_again_in: Duration) -> Next {
    Next::Wait { why: why.into(), look_again_in, nudge: None }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
