//! The checks before a migration: what the guest is, whether the destination can take it, whether the source can send it there.
//!
//! All of them only look (apart from probe files and a port that is listened on for a moment) and may be repeated at will.

pub mod connections;
pub mod cpu;
pub mod describe;
pub mod described;
pub mod destination;
pub mod post_copy;
pub mod reach;
pub mod source;
