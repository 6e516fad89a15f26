//! Scenarios on the bench: real guests, moved through the whole stack, with everything going wrong that can.
//!
//! One at a time: `cargo test -p drover-tests --test live` (see `deploy/dev/test` for what it needs around it).

mod cloud;
mod cutover;
mod faults;
mod force_complete;
mod moves;
mod notifications;
mod observed;
mod power;
mod refusals;
mod steering;
mod storage;
mod stream;
mod verdicts;
mod vm;
