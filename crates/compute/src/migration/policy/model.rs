//! A model of QEMU's pre-copy, for tests: in each pass it sends what was written in the one before, and it stops the guest for the
//! rest as soon as that fits into the downtime that it is allowed.

use std::time::Duration;

use super::{Decision, Measure, Policy, Situation};

/// A guest and a link; bytes, and bytes per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    pub(super) memory: u64,
    /// What the guest writes to, over and over.
    pub(super) set: u64,
    pub(super) dirty: u64,
    pub(super) bandwidth: u64,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Finished { after_ms: u64, downtime_ms: u64 },
    PostCopy,
    Aborted,
    Forced,
    Endless,
}

/// Of QEMU, before anybody says anything.
const DOWNTIME_MS: u64 = 300;
/// As libvirt is asked between two events.
const SAMPLE_MS: u64 = 500;
const AT_MOST_MS: u64 = 4_000_000;

/// Copies, and does what the policy says; also each decision, once.
pub(super) fn run(policy: &mut dyn Policy, copy: Copy) -> (Outcome, Vec<Decision>) {
    let (mut elapsed, mut limit, mut said, mut left) = (0, None, Vec::<Decision>::new(), copy.memory);
    for iteration in 1.. {
        let lasts = (left * 1000 / copy.bandwidth).max(1);
        for at in (0..lasts).step_by(usize::try_from(SAMPLE_MS).unwrap()) {
            let now = Situation {
                elapsed: Duration::from_millis(elapsed + at + 1),
                downtime_ms: limit,
                iteration,
                remaining: signed(left - left * at / lasts),
                bytes_per_second: signed(copy.bandwidth),
                throttle_percent: 0,
            };
            for decision in policy.decide(&now) {
                let measure = decision.measure;
                if !said.contains(&decision) {
                    said.push(decision);
                }
                match measure {
                    Measure::SetDowntime { milliseconds } => limit = Some(milliseconds),
                    Measure::PostCopy => return (Outcome::PostCopy, said),
                    Measure::Abort => return (Outcome::Aborted, said),
                    Measure::ForceComplete => return (Outcome::Forced, said),
                    Measure::Wait => {}
                }
            }
        }
        elapsed += lasts;
        left = (copy.dirty * lasts / 1000).min(copy.set);
        let downtime_ms = left * 1000 / copy.bandwidth;
        if downtime_ms <= limit.unwrap_or(DOWNTIME_MS) {
            return (Outcome::Finished { after_ms: elapsed + downtime_ms, downtime_ms }, said);
        }
        if elapsed > AT_MOST_MS {
            break;
        }
    }
    (Outcome::Endless, said)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap()
}
