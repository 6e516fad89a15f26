//! Drover's own part of the API, `/drover/v1`: what Nova has no place for. For admins.

pub(crate) mod doctor;
pub(crate) mod findings;
pub(crate) mod keep;
pub(crate) mod migrations;
pub(crate) mod pause;
pub(crate) mod placement;
pub(crate) mod queue;
