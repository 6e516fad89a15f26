//! What the conductor does for each kind of move.

pub(crate) mod live_migration;
