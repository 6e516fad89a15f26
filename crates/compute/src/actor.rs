//! Migrations under way on this host as their source: one actor per server, with a bounded inbox.
//!
//! ```text
//! order ──admit──▶ Pending ──leave──▶ InCall ──call returns──▶ Ended ──▶ report
//!                     │ refused: forgotten        ▲
//! watch ──a job is there──▶ Attached ─────────────┘ job gone
//! ```
//!
//! An order for an attempt that is known is ignored, so is one for an older attempt. A newer attempt supersedes what is left of the
//! older one: its report is pointless. What was done with each attempt is in the [`Ledger`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use drover_common::ids::ServerId;
use drover_common::rpc::latest::{CallState, OfAttempt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::metrics;

/// Commands that wait for an actor. The same command twice is one; more than a few is a defect elsewhere.
const INBOX_LENGTH: usize = 8;

/// What is asked of a migration under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Take it back.
    Abort,
    /// Bring it to an end.
    ForceComplete,
    /// Use this share of the links, MiB/s; none: they have no limit.
    Bandwidth(Option<u64>),
}

/// What becomes of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is taken on.
    Taken,
    /// This attempt is known.
    Known,
    /// A newer attempt is under way.
    Older,
}

/// Decides about an order: `under_way` is the server's attempt that has an actor, `seen` what the ledger says of the ordered one.
pub fn admit(under_way: Option<OfAttempt>, seen: &CallState, ordered: OfAttempt) -> Admission {
    let age = |of: OfAttempt| (of.migration, of.attempt);
    match under_way {
        Some(current) if age(current) > age(ordered) => Admission::Older,
        Some(current) if age(current) == age(ordered) => Admission::Known,
        _ if *seen != CallState::Unseen => Admission::Known,
        _ => Admission::Taken,
    }
}

/// The actors.
#[derive(Debug, Clone, Default)]
pub struct Actors {
    table: Arc<Mutex<HashMap<ServerId, Handle>>>,
}

#[derive(Debug)]
struct Handle {
    of: OfAttempt,
    commands: mpsc::Sender<Command>,
    superseded: CancellationToken,
}

/// An actor's place in the table; leaving it is dropping it.
#[derive(Debug)]
pub struct Seat {
    /// The attempt.
    pub of: OfAttempt,
    /// What is asked of it.
    pub commands: mpsc::Receiver<Command>,
    /// Cancelled when a newer attempt takes its place.
    pub superseded: CancellationToken,
    table: Arc<Mutex<HashMap<ServerId, Handle>>>,
}

impl Actors {
    /// Takes an attempt on, if it is new, and notes `state` for it.
    pub fn enter(&self, ledger: &Ledger, of: OfAttempt, state: CallState) -> Result<Seat, Admission> {
        let mut table = lock(&self.table);
        let under_way = table.get(&of.server).map(|handle| handle.of);
        match admit(under_way, &ledger.state(of.migration, of.attempt), of) {
            Admission::Taken => {}
            refused => return Err(refused),
        }
        ledger.set(of, state);
        let (commands, inbox) = mpsc::channel(INBOX_LENGTH);
        let superseded = CancellationToken::new();
        let handle = Handle { of, commands, superseded: superseded.clone() };
        metrics::in_hand(1.0);
        if let Some(old) = table.insert(of.server, handle) {
            old.superseded.cancel();
        }
        Ok(Seat { of, commands: inbox, superseded, table: Arc::clone(&self.table) })
    }

    /// Takes an attempt on again that broke in post-copy and that nobody is at, whatever was done with it before.
    pub fn enter_again(&self, ledger: &Ledger, of: OfAttempt) -> Option<Seat> {
        if self.is_under_way(of.server) {
            return None;
        }
        ledger.forget(of);
        self.enter(ledger, of, CallState::Pending).ok()
    }

    /// Whether a migration of this server away from here is ours.
    pub fn is_under_way(&self, server: ServerId) -> bool {
        lock(&self.table).contains_key(&server)
    }

    /// Hands a command to the actor of exactly this attempt; false if there is none.
    pub fn command(&self, of: OfAttempt, command: Command) -> bool {
        let table = lock(&self.table);
        let handle = table.get(&of.server).filter(|handle| handle.of == of);
        // A full inbox already holds the command several times.
        handle.is_some_and(|handle| handle.commands.try_send(command).is_ok())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        metrics::in_hand(-1.0);
        let mut table = lock(&self.table);
        if table.get(&self.of.server).is_some_and(|handle| handle.of == self.of) {
            table.remove(&self.of.server);
        }
    }
}

fn lock(table: &Mutex<HashMap<ServerId, Handle>>) -> std::sync::MutexGuard<'_, HashMap<ServerId, Handle>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use drover_common::ids::{Attempt, MigrationId};

    use super::*;

    fn of(server: ServerId, migration: i64, attempt: i32) -> OfAttempt {
        OfAttempt { migration: MigrationId(migration), attempt: Attempt(attempt), server }
    }

    #[test]
    fn an_order_is_taken_once_and_never_when_older() {
        let (actors, ledger, server) = (Actors::default(), Ledger::default(), ServerId::random());
        let enter = |migration, attempt| actors.enter(&ledger, of(server, migration, attempt), CallState::Pending);
        let second = enter(7, 2).unwrap();
        assert_eq!(enter(7, 2).unwrap_err(), Admission::Known);
        assert_eq!(enter(7, 1).unwrap_err(), Admission::Older);
        assert_eq!(enter(6, 9).unwrap_err(), Admission::Older);
        let third = enter(7, 3).unwrap();
        assert!(second.superseded.is_cancelled() && !third.superseded.is_cancelled());
        drop(second);
        assert_eq!(enter(7, 3).unwrap_err(), Admission::Known);
        ledger.set(third.of, CallState::ended(None));
        drop(third);
        assert_eq!(enter(7, 3).unwrap_err(), Admission::Known, "it ended, and will not be started again");
        ledger.forget(of(server, 7, 3));
        assert!(enter(7, 3).is_ok(), "its start was refused, so it may be ordered again");
    }

    #[test]
    fn commands_reach_the_actor_of_their_attempt_and_no_other() {
        let (actors, ledger, server) = (Actors::default(), Ledger::default(), ServerId::random());
        let mut seat = actors.enter(&ledger, of(server, 7, 1), CallState::Pending).unwrap();
        assert!(actors.command(of(server, 7, 1), Command::Abort));
        assert!(!actors.command(of(server, 7, 2), Command::Abort));
        assert!(!actors.command(of(ServerId::random(), 7, 1), Command::Abort));
        assert_eq!(seat.commands.try_recv(), Ok(Command::Abort));
        for _ in 0..INBOX_LENGTH {
            assert!(actors.command(of(server, 7, 1), Command::ForceComplete));
        }
        assert!(!actors.command(of(server, 7, 1), Command::ForceComplete), "the inbox is bounded");
    }
}
