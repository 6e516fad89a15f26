//! One call about a domain at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use drover_common::ids::ServerId;
use tokio::sync::OwnedMutexGuard;

type Locks = Mutex<HashMap<ServerId, Arc<tokio::sync::Mutex<()>>>>;

/// Whose turn it is, domain by domain.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Locks>);

/// A turn; the next one about this domain begins when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    server: ServerId,
    turns: Turns,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for a turn.
    pub(super) async fn take(&self, server: ServerId) -> Turn {
        let lock = Arc::clone(self.lock().entry(server).or_default());
        Turn { server, turns: self.clone(), held: Some(lock.lock_owned().await) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServerId, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.held.take();
        let mut locks = self.turns.lock();
        // Nobody waits for it: only the table knows it.
        if locks.get(&self.server).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.server);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_domain_waits_for_its_own_turn_and_for_no_other() {
        let (turns, sick, well) = (Turns::default(), ServerId::random(), ServerId::random());
        let held = turns.take(sick).await;
        assert!(turns.take(sick).now_or_never().is_none());
        assert!(turns.take(well).now_or_never().is_some());
        drop(held);
        assert!(turns.take(sick).now_or_never().is_some());
        assert!(turns.lock().is_empty(), "nothing is kept of domains that nobody asks about");
    }
}
