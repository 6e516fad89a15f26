//! Recovery is the normal path: the same decision after an event and after a crash.
//!
//! [`plan`] is pure: a row and what both hosts say go in, the next action comes out. [`facts`] asks the hosts. [`sweep`] finds rows
//! that nobody looks after. [`crate::drive`] carries out.

pub mod facts;
pub mod plan;
pub mod sweep;
