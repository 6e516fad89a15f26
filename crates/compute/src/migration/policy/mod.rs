//! How a copy is made to come to an end.
//!
//! A [`Policy`] is fed with samples of libvirt's job and answers with decisions, each with its reason. It is pure: no clock, no I/O;
//! what it remembers is what it was told. A deed is decided again with each sample until it has worked, so one that failed is tried
//! again.
//!
//! | policy | what it does | used |
//! | --- | --- | --- |
//! | [`convergence`] | Nova's steps and timeout, and a look at each iteration whether the copy gets anywhere | always |
//! | [`nova`] | downtime steps by time, completion timeout | as its base; for comparison |
//! | [`ovirt`], [`proxmox`] | what those do | for comparison (`bench measure --convergence`) |

pub mod convergence;
pub mod nova;
pub mod ovirt;
pub mod proxmox;
pub mod stall;

#[cfg(test)]
mod model;

use std::time::Duration;

use drover_common::config::{LibvirtSection, StallAction, TimeoutAction};
use drover_common::migration::Progress;

const GIB: u64 = 1 << 30;
/// Nova reckons a guest's memory and each of its disks as at least so much.
const LEAST_BYTES: u64 = 2 * GIB;

/// The options that the policy is made of.
#[derive(Debug, Clone)]
pub struct PolicyOptions {
    /// The longest pause at the end, in milliseconds: the budget.
    pub downtime_ms: u64,
    /// In how many increments it is reached.
    pub downtime_steps: u64,
    /// Seconds between two of them, for each GiB of the guest.
    pub downtime_delay_seconds: u64,
    /// Seconds for each GiB after which `timeout_action` is taken; 0 for never.
    pub completion_timeout_seconds: u64,
    /// What is done then.
    pub timeout_action: TimeoutAction,
    /// What is done when a copy gets nowhere and nothing else can end it.
    pub stall_action: StallAction,
}

impl PolicyOptions {
    /// The policy's part of `[libvirt]`.
    pub fn new(libvirt: &LibvirtSection) -> Self {
        Self {
            downtime_ms: libvirt.live_migration_downtime,
            downtime_steps: libvirt.live_migration_downtime_steps,
            downtime_delay_seconds: libvirt.live_migration_downtime_delay,
            completion_timeout_seconds: libvirt.live_migration_completion_timeout,
            timeout_action: libvirt.live_migration_timeout_action,
            stall_action: libvirt.live_migration_stall_action,
        }
    }
}

/// What is to be moved, in bytes, as the policy's times count it.
pub fn weight_bytes(memory_bytes: u64, copied_disks_bytes: impl IntoIterator<Item = u64>) -> u64 {
    let disks: u64 = copied_disks_bytes.into_iter().map(|bytes| bytes.max(LEAST_BYTES)).sum();
    memory_bytes.max(LEAST_BYTES) + disks
}

/// How it stands with a job whose guest still runs here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Situation {
    /// Since the job began, by libvirt's clock: it goes on when the agent changes.
    pub elapsed: Duration,
    /// The downtime that was set last.
    pub downtime_ms: Option<u64>,
    /// Which pass over the memory; 0 while there is none (disks come first).
    pub iteration: i64,
    /// Memory left in this pass, bytes.
    pub remaining: i64,
    /// Sent per second lately, bytes.
    pub bytes_per_second: i64,
    /// How much auto-converge slows the guest.
    pub throttle_percent: i32,
}

impl Situation {
    /// From a sample.
    pub fn of(progress: &Progress, downtime_ms: Option<u64>) -> Self {
        Self {
            elapsed: Duration::from_millis(u64::try_from(progress.elapsed_ms).unwrap_or(0)),
            downtime_ms,
            iteration: if progress.memory_total > 0 { progress.iteration } else { 0 },
            remaining: progress.memory_remaining,
            bytes_per_second: progress.bytes_per_second,
            throttle_percent: progress.throttle_percent,
        }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Allow a longer pause at the end.
    SetDowntime {
        /// Milliseconds.
        milliseconds: u64,
    },
    /// Let the guest run on the other side before all its memory is there.
    PostCopy,
    /// Take the migration back.
    Abort,
    /// Bring it to an end: post-copy if it may become one, else the guest stands until it has arrived.
    ForceComplete,
    /// Nothing: there is no way to finish, and that is said.
    Wait,
}

/// A measure and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub measure: Measure,
    /// Why, for people.
    pub why: String,
}

/// Decides about one copy.
pub trait Policy: Send {
    /// The rules in one line, for people.
    fn describe(&self) -> String;
    /// What is to be done now.
    fn decide(&mut self, now: &Situation) -> Vec<Decision>;
    /// Whether the copy was found to get nowhere; true once, for the count.
    fn take_stall(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_each_disk_weigh_at_least_two_gib() {
        assert_eq!(weight_bytes(GIB, []), 2 * GIB);
        assert_eq!(weight_bytes(5 * GIB, [GIB, 10 * GIB]), 17 * GIB);
    }
}
