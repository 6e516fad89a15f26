//! How long it took until guests that arrived were announced.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_common::ids::ServerId;

/// Guests that are remembered; of one that is forgotten it is not told.
const REMEMBERED_MAX: usize = 1024;

/// For each guest that arrived here: from libvirt's word that its CPUs run to the first announcement that left, by this host's clock.
#[derive(Debug, Default)]
pub struct Announced {
    guests: Mutex<BTreeMap<ServerId, Duration>>,
}

impl Announced {
    /// The guest is about to arrive: what was noted of an earlier arrival is not this one's.
    pub fn expect(&self, server: ServerId) {
        self.lock().remove(&server);
    }

    /// Its first announcement has left.
    pub fn note(&self, server: ServerId, after: Duration) {
        let mut guests = self.lock();
        guests.insert(server, after);
        if guests.len() > REMEMBERED_MAX {
            guests.pop_first();
        }
    }

    /// After how many milliseconds it was announced, rounded up; none if it was not, or not by this life of the agent.
    pub fn after_ms(&self, server: ServerId) -> Option<u64> {
        let after = self.lock().get(&server)?.as_micros().div_ceil(1000);
        u64::try_from(after).ok()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServerId, Duration>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_counts_until_the_guest_comes_again_and_never_looks_shorter_than_it_was() {
        let (announced, server) = (Announced::default(), ServerId::random());
        assert_eq!(announced.after_ms(server), None);
        announced.note(server, Duration::from_micros(2001));
        assert_eq!(announced.after_ms(server), Some(3));
        assert_eq!(announced.after_ms(server), Some(3), "asked twice");
        announced.expect(server);
        assert_eq!(announced.after_ms(server), None);
    }
}
