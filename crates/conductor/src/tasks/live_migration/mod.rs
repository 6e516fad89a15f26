//! `LiveMigrationTask`: the steps, each with what it leaves durable, what undoes it, and why that suffices.
//!
//! | step | durable afterwards | undone by |
//! | --- | --- | --- |
//! | [`prechecks`], [`destination`] | refusals | nothing: agents remove their probe files by themselves |
//! | [`claim`] | `preparing`, destination, attempt, claim, what both hosts agreed on | deleting the claim |
//! | [`start`]: `pre_live_migration` | that the destination is ready | [`roll_back`]: the destination removes what carries this attempt's mark |
//! | [`start`]: cast | how often | nothing: without a grant the source does nothing |
//! | grant to start ([`crate::grants`]) | `running` | from here facts of both hosts decide, see [`crate::recovery::plan`] |
//! | [`recover`]: a post-copy that broke | how often | nothing: there is no way but forward |
//! | [`finish`]: switch-over | `post-migrating` | nothing: the guest lives on the destination |
//! | [`finish`]: both hosts finish | `completed`, the books | |
//! | [`conflict`] | a finding; an operator's choice | nothing: no copy is removed that was not chosen against |
//! | [`roll_back`] | `failed`, `cancelled` or another try | |
//!
//! *Adding a step:* a function that ends in one guarded write, a [`crate::recovery::plan::Next`] that asks for it, an arm in
//! `drive::act`. It must bear being done twice.

pub(crate) mod claim;
pub(crate) mod closing;
pub(crate) mod conflict;
pub(crate) mod destination;
pub(crate) mod finish;
pub(crate) mod prechecks;
pub(crate) mod recover;
pub(crate) mod roll_back;
pub(crate) mod start;
mod storage;
