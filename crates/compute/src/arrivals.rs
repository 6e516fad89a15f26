//! Migrations that arrive here: for each, one step at a time, and no step forward after a step back.
//!
//! The order to make ready can come late: after the order to roll back, which found nothing then. What it would make nobody would
//! remove any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_common::ids::{Attempt, MigrationId, ServerId};
use tokio::sync::OwnedMutexGuard;

/// Migrations and coming guests that are remembered. The oldest migrations are forgotten: their orders are long out of the broker.
const REMEMBERED_MAX: usize = 1024;

/// A turn with a migration; the next begins when it is dropped.
pub type Turn = OwnedMutexGuard<Option<Attempt>>;

/// For each migration the newest attempt that was rolled back here, behind a lock that is held for a step; and who is on the way.
#[derive(Debug, Default)]
pub struct Arrivals {
    coming: Mutex<BTreeSet<ServerId>>,
    rolled_back: Mutex<BTreeMap<MigrationId, Arc<tokio::sync::Mutex<Option<Attempt>>>>>,
}

impl Arrivals {
    /// Waits for a turn to make ready for an attempt; none if it was rolled back already.
    pub async fn make_ready(&self, migration: MigrationId, attempt: Attempt) -> Option<Turn> {
        let turn = self.turn(migration).await;
        let is_over = turn.is_some_and(|rolled_back| attempt <= rolled_back);
        (!is_over).then_some(turn)
    }

    /// Waits for a turn to roll an attempt back; from now on it is over.
    pub async fn roll_back(&self, migration: MigrationId, attempt: Attempt) -> Turn {
        let mut turn = self.turn(migration).await;
        *turn = (*turn).max(Some(attempt));
        turn
    }

    /// It is made ready for this guest, which may come from now on.
    pub fn may_come(&self, server: ServerId) {
        let mut coming = self.coming();
        coming.insert(server);
        if coming.len() > REMEMBERED_MAX {
            coming.pop_first();
        }
    }

    /// It has come, or will not come.
    pub fn settle(&self, server: ServerId) {
        self.coming().remove(&server);
    }

    /// Whether it may be on its way here, as far as this life of the agent was told.
    pub fn is_coming(&self, server: ServerId) -> bool {
        self.coming().contains(&server)
    }

    fn coming(&self) -> MutexGuard<'_, BTreeSet<ServerId>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self, migration: MigrationId) -> Turn {
        let lock = {
            let mut known = self.rolled_back.lock().unwrap_or_else(PoisonError::into_inner);
            let lock = Arc::clone(known.entry(migration).or_default());
            if known.len() > REMEMBERED_MAX {
                // Not one that somebody has a turn with, or waits for.
                let oldest = known.iter().find(|(_, lock)| Arc::strong_count(lock) == 1).map(|(id, _)| *id);
                oldest.and_then(|id| known.remove(&id));
            }
            lock
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIGRATION: MigrationId = MigrationId(7);

    #[tokio::test]
    async fn after_a_roll_back_only_a_newer_attempt_is_made_ready() {
        let arrivals = Arrivals::default();
        assert!(arrivals.make_ready(MIGRATION, Attempt(2)).await.is_some());
        drop(arrivals.roll_back(MIGRATION, Attempt(2)).await);
        drop(arrivals.roll_back(MIGRATION, Attempt(1)).await);
        assert!(arrivals.make_ready(MIGRATION, Attempt(2)).await.is_none());
        assert!(arrivals.make_ready(MIGRATION, Attempt(3)).await.is_some());
        assert!(arrivals.make_ready(MigrationId(8), Attempt(1)).await.is_some());
    }

    #[tokio::test]
    async fn a_step_waits_for_the_one_before_it() {
        let arrivals = Arrivals::default();
        let making = arrivals.make_ready(MIGRATION, Attempt(1)).await;
        assert!(arrivals.roll_back(MIGRATION, Attempt(1)).now_or_never().is_none());
        assert!(arrivals.make_ready(MigrationId(8), Attempt(1)).now_or_never().is_some());
        drop(making);
        assert!(arrivals.roll_back(MIGRATION, Attempt(1)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn only_the_newest_are_remembered() {
        let arrivals = Arrivals::default();
        for migration in 0..2000 {
            drop(arrivals.roll_back(MigrationId(migration), Attempt(1)).await);
        }
        assert!(arrivals.make_ready(MigrationId(1999), Attempt(1)).await.is_none());
        assert!(arrivals.rolled_back.lock().unwrap().len() <= REMEMBERED_MAX);
    }
}
