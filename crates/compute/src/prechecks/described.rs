//! Guests that were described a moment ago. The source's own check follows within milliseconds, and need not ask libvirt all of it
//! again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drover_common::ids::MigrationId;
use drover_common::rpc::latest::GuestDisk;
use tokio::time::Instant;

use super::describe::Guest;

/// For so long a guest is taken to be as it was described. The start, which comes much later, looks again in any case.
const FRESH: Duration = Duration::from_secs(1);

/// What was found, for each migration that is being checked.
#[derive(Debug, Default)]
pub struct Described(Mutex<HashMap<MigrationId, Found>>);

#[derive(Debug)]
struct Found {
    at: Instant,
    guest: Guest,
    disks: Vec<GuestDisk>,
}

impl Described {
    /// Keeps what was found just now; what nobody asked for in time is dropped.
    pub(super) fn keep(&self, migration: MigrationId, guest: Guest, disks: Vec<GuestDisk>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, found| found.at.elapsed() < FRESH);
        known.insert(migration, Found { at: Instant::now(), guest, disks });
    }

    /// Gives it away: another candidate's check, which comes later, looks anew.
    pub(super) fn take(&self, migration: MigrationId) -> Option<(Guest, Vec<GuestDisk>)> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&migration);
        found.filter(|found| found.at.elapsed() < FRESH).map(|found| (found.guest, found.disks))
    }
}
