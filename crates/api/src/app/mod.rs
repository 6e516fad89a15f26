//! What the API does, apart from HTTP: each change of the record is one transaction, and what it promises to send goes out after.

pub(crate) mod aggregates;
pub(crate) mod busy;
pub(crate) mod migrations;
pub(crate) mod outbox;
pub(crate) mod power;
pub(crate) mod prechecks;
pub(crate) mod server_groups;
pub(crate) mod servers;
pub(crate) mod services;
