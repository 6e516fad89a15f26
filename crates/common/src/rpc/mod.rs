//! The messages between API, conductor and compute agents.
//!
//! Every message is an [`Envelope`] around one variant of the enum of the service that receives it: [`latest::ToConductor`],
//! [`latest::ToCompute`] or [`latest::ToApi`]. A message is a nudge; the row in PostgreSQL decides. So every handler may get its
//! message late, twice or never.
//!
//! *Adding a message:* a variant in the receiver's enum and a body struct beside it, a golden in `tests/` of this crate, a handler
//! in the receiver, a line in `docs/messages.md`. A new *field* gets `#[serde(default)]` and raises the minor version; a receiver
//! ignores fields it does not know. What cannot be done so raises the major version and gets a folder `v2`.

pub mod envelope;
pub mod v1;

pub use envelope::{Envelope, Version};
/// The newest version of every message.
pub mod latest {
    pub use super::v1::api::*;
    pub use super::v1::compute::*;
    pub use super::v1::conductor::*;
    pub use super::v1::doctor::*;
    pub use super::v1::facts::*;
    pub use super::v1::guest::*;
    pub use super::v1::image::*;
    pub use super::v1::power::*;
}
