//! Version 1 of the messages.

pub mod api;
pub mod compute;
pub mod conductor;
pub mod doctor;
pub mod facts;
pub mod guest;
pub mod image;
pub mod power;
