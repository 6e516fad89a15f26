//! What an API process receives.

use serde::{Deserialize, Serialize};

use crate::ids::MigrationId;

/// Messages to one API process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum ToApi {
    /// A migration left the precheck states: whoever waits should look at its row now.
    MigrationMoved {
        /// Which one.
        migration: MigrationId,
    },
}
