//! What was verified a short while ago, so that not every request costs a question or a hash.
//!
//! Secrets are not kept: an entry's key is the HMAC of the secret, under a key that this process drew and nobody else knows.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::time::Instant;
use uuid::Uuid;

/// Entries at most. Whoever fills it holds as many valid credentials.
const ENTRIES_MAX: usize = 10_000;

/// The key of an entry.
pub(super) type Fingerprint = [u8; 32];

/// Credentials that proved good, and what they are good for.
pub(super) struct Verified<V> {
    mac: Hmac<Sha256>,
    entries: Mutex<HashMap<Fingerprint, Entry<V>>>,
}

struct Entry<V> {
    value: V,
    until: Instant,
}

impl<V: Clone> Verified<V> {
    /// An empty one, with a new key.
    pub(super) fn new() -> Self {
        let mut key = [0; 64];
        for part in key.chunks_exact_mut(16) {
            part.copy_from_slice(Uuid::new_v4().as_bytes()); // The system's random numbers.
        }
        Self { mac: Hmac::new(&key.into()), entries: Mutex::default() }
    }

    /// The key of these credentials.
    pub(super) fn fingerprint(&self, secret: &[u8]) -> Fingerprint {
        self.mac.clone().chain_update(secret).finalize().into_bytes().into()
    }

    /// What they are good for, if they proved good and that still holds.
    pub(super) fn get(&self, fingerprint: &Fingerprint) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(fingerprint).filter(|entry| Instant::now() < entry.until).map(|entry| entry.value.clone())
    }

    /// Remembers it for so long.
    pub(super) fn insert(&self, fingerprint: Fingerprint, value: V, lifetime: Duration) {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, entry| now < entry.until);
        }
        if entries.len() >= ENTRIES_MAX {
            entries.clear(); // Costs a question each; who was forgotten is let in again.
        }
        if !lifetime.is_zero() {
            entries.insert(fingerprint, Entry { value, until: now + lifetime });
        }
    }
}

impl<V> fmt::Debug for Verified<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_entry_holds_for_its_lifetime() {
        let verified = Verified::new();
        let (good, other) = (verified.fingerprint(b"good"), verified.fingerprint(b"other"));
        verified.insert(good, 7, Duration::from_secs(10));
        assert_eq!((verified.get(&good), verified.get(&other)), (Some(7), None));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(verified.get(&good), None);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_bound_and_what_ran_out_goes_first() {
        let verified = Verified::new();
        for n in 0..ENTRIES_MAX {
            let lifetime = Duration::from_secs(if n % 2 == 0 { 1 } else { 100 });
            verified.insert(verified.fingerprint(&n.to_be_bytes()), n, lifetime);
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        let last = verified.fingerprint(b"last");
        verified.insert(last, 0, Duration::from_secs(1));
        assert_eq!(verified.entries.lock().unwrap().len(), ENTRIES_MAX / 2 + 1);
        assert_eq!(verified.get(&verified.fingerprint(&1_usize.to_be_bytes())), Some(1));
    }

    #[test]
    fn two_processes_never_have_the_same_fingerprint_of_a_secret() {
        assert_ne!(Verified::<()>::new().fingerprint(b"x"), Verified::<()>::new().fingerprint(b"x"));
    }
}
