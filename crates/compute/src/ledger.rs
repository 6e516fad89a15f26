//! What this life of the agent did with each attempt: the answer to the conductor's "did you start it?".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use drover_common::ids::{Attempt, MigrationId, ServerId};
use drover_common::rpc::latest::{CallState, OfAttempt};

/// Attempts that are remembered. The oldest that ended are forgotten: nobody asks about them any more.
const ENTRIES_MAX: usize = 1024;

type Key = (MigrationId, Attempt);

/// The attempts of this life.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<BTreeMap<Key, CallState>>,
    stopped: Mutex<BTreeSet<ServerId>>,
}

impl Ledger {
    /// What was done with an attempt.
    pub fn state(&self, migration: MigrationId, attempt: Attempt) -> CallState {
        self.lock().get(&(migration, attempt)).cloned().unwrap_or(CallState::Unseen)
    }

    /// Notes what is done with it now.
    pub fn set(&self, of: OfAttempt, state: CallState) {
        let mut entries = self.lock();
        entries.insert(key(of), state);
        while entries.len() > ENTRIES_MAX {
            let ended = entries.iter().find(|(_, state)| matches!(state, CallState::Ended { .. }));
            let Some(oldest) = ended.map(|(key, _)| *key) else { break };
            entries.remove(&oldest);
        }
    }

    /// Nothing was done, nothing will be: the attempt is as if never heard of.
    pub fn forget(&self, of: OfAttempt) {
        self.lock().remove(&key(of));
    }

    /// Notes that the guest is stopped by us, to bring its migration to an end: should that fail, it is to go on.
    pub fn note_stop(&self, server: ServerId) {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).insert(server);
    }

    /// It goes on, or was not stopped, or is gone.
    pub fn forget_stop(&self, server: ServerId) {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).remove(&server);
    }

    /// Whether it was stopped by us.
    pub fn was_stopped(&self, server: ServerId) -> bool {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).contains(&server)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, CallState>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(of: OfAttempt) -> Key {
    (of.migration, of.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(migration: i64) -> OfAttempt {
        OfAttempt { migration: MigrationId(migration), attempt: Attempt(1), server: ServerId::random() }
    }

    #[test]
    fn an_attempt_is_unseen_until_noted_and_again_when_forgotten() {
        let ledger = Ledger::default();
        assert_eq!(ledger.state(MigrationId(1), Attempt(1)), CallState::Unseen);
        ledger.set(of(1), CallState::InCall);
        assert_eq!(ledger.state(MigrationId(1), Attempt(1)), CallState::InCall);
        assert_eq!(ledger.state(MigrationId(1), Attempt(2)), CallState::Unseen);
        ledger.forget(of(1));
        assert_eq!(ledger.state(MigrationId(1), Attempt(1)), CallState::Unseen);
    }

    #[test]
    fn only_the_oldest_that_ended_are_forgotten() {
        let ledger = Ledger::default();
        ledger.set(of(0), CallState::InCall);
        for migration in 1..2000 {
            ledger.set(of(migration), CallState::ended(None));
        }
        assert_eq!(ledger.state(MigrationId(0), Attempt(1)), CallState::InCall);
        assert_eq!(ledger.state(MigrationId(1), Attempt(1)), CallState::Unseen);
        assert_eq!(ledger.state(MigrationId(1999), Attempt(1)), CallState::ended(None));
    }
}
