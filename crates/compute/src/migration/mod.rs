//! The steps of a migration on its hosts.
//!
//! | step | where | file |
//! | --- | --- | --- |
//! | make ready: files to copy and to carry into | destination | [`destination`] |
//! | give out read-only images that are carried over | source | [`carried`] |
//! | start, watch, report | source | [`source`], [`monitor`], [`policy`], [`outlook`] |
//! | go on with a post-copy that broke | source | [`recover`] |
//! | take over | destination | [`destination`] |
//! | clean up after success | source | [`post`] |
//! | clean up after failure | destination | [`rollback`] |
//! | let run again, stop in a conflict | either | [`power`] |
//! | remove the copy that an operator did not choose | either | [`discard`] |
//!
//! Each may be asked for any number of times. What cannot be taken back asks for leave first ([`crate::grants`]).

pub mod carried;
pub mod destination;
pub mod discard;
pub mod monitor;
pub mod outlook;
pub mod policy;
pub mod post;
pub mod power;
pub mod recover;
pub mod rollback;
pub mod source;
pub mod uri;
