//! What is done to a guest next, for each power action: pure.
//!
//! ```text
//!                runs            paused, asleep   shut off   crashed
//! pause          suspend         done             -          -
//! unpause        done            resume           -          -
//! start          done            done             start      destroy
//! stop           shut down *     destroy          done       destroy
//! reboot, soft   shut down *     destroy          start      destroy
//! reboot, hard   destroy         destroy          start      destroy
//! delete         destroy         destroy          undefine   destroy
//! ```
//!
//! \* and destroy when its time is up. A reboot is done when the guest was started. "Crashed" is a guest that libvirt has kept.
//! A guest on which libvirt works, and one that stands because of a migration, is left alone.

use drover_common::power::PowerAction;
use drover_common::rpc::latest::GuestState;

use crate::driver::Action;

/// A guest, and what this order has done to it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scene {
    pub(super) state: GuestState,
    pub(super) persistent: bool,
    /// libvirt has a job on it, or a migration of it is under way here.
    pub(super) is_busy: bool,
    /// By this order.
    pub(super) started: bool,
    pub(super) shutdown: Shutdown,
}

/// Whether the guest was told to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// Not yet, or not for a while.
    NotAsked,
    /// Yes.
    Asked,
    /// Its time is up, or it has none.
    Over,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    /// All is done.
    Nothing,
    /// This.
    Do(Action),
    /// Wait for the guest.
    Await,
    /// This action is not for such a guest: why.
    Refuse(String),
}

/// Decides.
pub(super) fn next(action: PowerAction, scene: Scene) -> Deed {
    use GuestState::{
        Crashed, Paused, PausedMigration, PausedPostCopy, PausedPostCopyFailed, Running, RunningPostCopy, RunningPostCopyFailed,
        ShutOff, Suspended,
    };
    use PowerAction::{Delete, Pause, RebootHard, RebootSoft, Start, Stop, Unpause};
    let refuse = |why: &str| Deed::Refuse(why.to_owned());
    if scene.is_busy {
        return refuse("libvirt works on it; try again when that is over");
    }
    let ends_it = matches!(action, Stop | RebootSoft | RebootHard) && scene.state.is_active() && !scene.started;
    if ends_it && !scene.persistent {
        return refuse("it is transient, so libvirt forgets it when it ends; define it first, or delete the server");
    }
    match (action, scene.state) {
        (Delete, ShutOff) => Deed::Do(Action::UndefineAll),
        (Delete, _) => Deed::Do(Action::Destroy),
        (_, PausedMigration | PausedPostCopy | PausedPostCopyFailed | RunningPostCopy | RunningPostCopyFailed) => {
            refuse("a migration has left it so")
        }
        (Pause, Running) => Deed::Do(Action::Suspend),
        (Pause, Paused) | (Unpause, Running) => Deed::Nothing,
        (Unpause, Paused) => Deed::Do(Action::Resume),
        (Pause | Unpause, Suspended | ShutOff | Crashed) => refuse("there are no CPUs at work"),
        (Start, Running | Paused | Suspended) => Deed::Nothing,
        (RebootSoft | RebootHard, Running | Paused | Suspended) if scene.started => Deed::Nothing,
        (Start | RebootSoft | RebootHard, ShutOff | Crashed) if scene.started => refuse("it ended right after its start"),
        (Start | RebootSoft | RebootHard, ShutOff) => Deed::Do(Action::Start),
        (Stop, ShutOff) => Deed::Nothing,
        (Stop | RebootSoft, Running) => match scene.shutdown {
            Shutdown::NotAsked => Deed::Do(Action::Shutdown),
            Shutdown::Asked => Deed::Await,
            Shutdown::Over => Deed::Do(Action::Destroy),
        },
        // A guest whose CPUs stand does not hear that it should shut down.
        (Stop | RebootSoft, Paused | Suspended) | (RebootHard, Running | Paused | Suspended) => Deed::Do(Action::Destroy),
        (Start | Stop | RebootSoft | RebootHard, Crashed) => Deed::Do(Action::Destroy),
    }
}

/// What is said of a guest about which libvirt is silent while it answers otherwise.
pub(super) const NO_ANSWER: &str =
    "libvirt has not answered about the guest for 30 s: its QEMU may hang. A stop, a hard reboot or a delete ends it all the same.";

/// What is to be done to a guest that cannot even be looked at. libvirt ends a QEMU that hangs: it kills the process.
pub(super) fn without_an_answer(action: PowerAction, started: bool) -> Deed {
    match action {
        PowerAction::Stop | PowerAction::RebootSoft | PowerAction::RebootHard | PowerAction::Delete if !started => {
            Deed::Do(Action::Destroy)
        }
        _ => Deed::Refuse(NO_ANSWER.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENE: Scene =
        Scene { state: GuestState::Running, persistent: true, is_busy: false, started: false, shutdown: Shutdown::NotAsked };

    fn in_state(state: GuestState) -> Scene {
        Scene { state, ..SCENE }
    }

    #[test]
    fn a_guest_that_hangs_is_ended_by_what_ends_guests() {
        for &action in PowerAction::ALL {
            let ends =
                matches!(action, PowerAction::Stop | PowerAction::RebootSoft | PowerAction::RebootHard | PowerAction::Delete);
            assert_eq!(without_an_answer(action, false) == Deed::Do(Action::Destroy), ends, "{action}");
            assert!(matches!(without_an_answer(action, true), Deed::Refuse(_)), "{action}: not the one that it has just started");
        }
    }

    #[test]
    fn the_table_holds() {
        use Action::{Destroy, Resume, Shutdown, Start, Suspend, UndefineAll};
        use GuestState::{Crashed, Paused, Running, ShutOff, Suspended};
        let cell = |action, state| match next(action, in_state(state)) {
            Deed::Do(deed) => Some(Some(deed)),
            Deed::Nothing => Some(None),
            Deed::Await | Deed::Refuse(_) => None,
        };
        let (done, no) = (Some(None), None);
        let deed = |action| Some(Some(action));
        for (action, row) in [
            (PowerAction::Pause, [deed(Suspend), done, no, no, no]),
            (PowerAction::Unpause, [done, deed(Resume), no, no, no]),
            (PowerAction::Start, [done, done, done, deed(Start), deed(Destroy)]),
            (PowerAction::Stop, [deed(Shutdown), deed(Destroy), deed(Destroy), done, deed(Destroy)]),
            (PowerAction::RebootSoft, [deed(Shutdown), deed(Destroy), deed(Destroy), deed(Start), deed(Destroy)]),
            (PowerAction::RebootHard, [deed(Destroy), deed(Destroy), deed(Destroy), deed(Start), deed(Destroy)]),
            (PowerAction::Delete, [deed(Destroy), deed(Destroy), deed(Destroy), deed(UndefineAll), deed(Destroy)]),
        ] {
            let seen = [Running, Paused, Suspended, ShutOff, Crashed].map(|state| cell(action, state));
            assert_eq!(seen, row, "{action}");
        }
    }

    #[test]
    fn a_guest_that_does_not_shut_down_is_ended_when_its_time_is_up() {
        for action in [PowerAction::Stop, PowerAction::RebootSoft] {
            for (shutdown, expected) in [
                (Shutdown::NotAsked, Deed::Do(Action::Shutdown)),
                (Shutdown::Asked, Deed::Await),
                (Shutdown::Over, Deed::Do(Action::Destroy)),
            ] {
                assert_eq!(next(action, Scene { shutdown, ..SCENE }), expected, "{action}");
            }
        }
    }

    #[test]
    fn a_reboot_is_done_once_the_guest_was_started_and_not_twice() {
        for action in [PowerAction::RebootSoft, PowerAction::RebootHard] {
            let started = |state| next(action, Scene { state, started: true, ..SCENE });
            assert_eq!(started(GuestState::Running), Deed::Nothing, "{action}");
            assert!(matches!(started(GuestState::ShutOff), Deed::Refuse(_)), "{action}");
        }
    }

    #[test]
    fn what_libvirt_works_on_and_what_a_migration_left_is_left_alone() {
        for &action in PowerAction::ALL {
            assert!(matches!(next(action, Scene { is_busy: true, ..SCENE }), Deed::Refuse(_)), "{action}");
            let left = next(action, in_state(GuestState::PausedMigration));
            if action == PowerAction::Delete {
                assert_eq!(left, Deed::Do(Action::Destroy));
            } else {
                assert!(matches!(left, Deed::Refuse(_)), "{action}: {left:?}");
            }
        }
    }

    #[test]
    fn a_transient_guest_is_never_ended_but_by_a_delete() {
        for &action in PowerAction::ALL {
            let deed = next(action, Scene { persistent: false, ..SCENE });
            let ends = matches!(deed, Deed::Do(Action::Destroy | Action::Shutdown));
            assert_eq!(ends, action == PowerAction::Delete, "{action}: {deed:?}");
        }
    }
}
