//! A whole conductor on a real database, with agents that follow a script instead of libvirt: what it does when they answer late,
//! wrongly or not at all. That real agents behave like these is what the live tests show.

mod diagnosis;
mod ends;
mod fleet;
mod metrics;
mod pauses;
mod queue;
mod reports;
mod storage;
mod traces;
mod world;
