//! How a copy is made to come to an end: Nova's downtime steps and its completion timeout (`nova/virt/libvirt/migration.py`). As in
//! Nova, nothing but force-complete begins post-copy; whether that is permitted is a flag of the job, not of the policy.
//!
//! Pure. The monitor asks with each sample and does what the answer says; asking again brings the same answer, so an action that
//! failed is tried again with the next sample.

use std::time::Duration;

use drover_common::config::{LibvirtSection, TimeoutAction};

const GIB: u64 = 1 << 30;
/// Nova reckons a guest's memory and each of its disks as at least so much.
const LEAST_BYTES: u64 = 2 * GIB;

/// The options that the policy is made of.
#[derive(Debug, Clone)]
pub struct PolicyOptions {
    /// The longest pause at the end, in milliseconds.
    pub downtime_ms: u64,
    /// In how many increments it is reached.
    pub downtime_steps: u64,
    /// Seconds between two of them, for each GiB of the guest.
    pub downtime_delay_seconds: u64,
    /// Seconds for each GiB after which `timeout_action` is taken; 0 for never.
    pub completion_timeout_seconds: u64,
    /// What is done then.
    pub timeout_action: TimeoutAction,
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
        }
    }
}

/// What is to be moved, in bytes, as the policy's times count it.
pub fn weight_bytes(memory_bytes: u64, copied_disks_bytes: impl IntoIterator<Item = u64>) -> u64 {
    let disks: u64 = copied_disks_bytes.into_iter().map(|bytes| bytes.max(LEAST_BYTES)).sum();
    memory_bytes.max(LEAST_BYTES) + disks
}

/// The policy for one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// From when on, counted from the job's beginning, which downtime applies (milliseconds).
    steps: Vec<(Duration, u64)>,
    completion_limit: Option<Duration>,
    timeout_action: TimeoutAction,
}

/// How it stands with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// Since the job began, by libvirt's clock: it goes on when the agent changes.
    pub elapsed: Duration,
    /// Whether it is in post-copy: then it comes to an end by itself, and cannot be taken back.
    pub post_copy: bool,
    /// The downtime that was set last.
    pub downtime_ms: Option<u64>,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Allow a longer pause at the end.
    SetDowntime {
        /// Milliseconds.
        milliseconds: u64,
    },
    /// It took too long: take it back.
    Abort,
    /// It took too long: bring it to an end.
    ForceComplete,
}

impl Policy {
    /// The policy for a guest of this weight (see [`weight_bytes`]).
    pub fn new(options: &PolicyOptions, weight_bytes: u64) -> Self {
        let for_guest = |seconds_per_gib: u64| {
            let seconds = u128::from(seconds_per_gib) * u128::from(weight_bytes) / u128::from(GIB);
            Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
        };
        let delay = for_guest(options.downtime_delay_seconds);
        let (downtime, count) = (options.downtime_ms, options.downtime_steps.max(1));
        let step = |i: u64| {
            // Nova's base + offset * i, in whole numbers: base = d/n, offset = (d - d/n) / n.
            let milliseconds = downtime * (count + (count - 1) * i) / (count * count);
            (delay.saturating_mul(u32::try_from(i).unwrap_or(u32::MAX)), milliseconds)
        };
        Self {
            steps: (0..=count).map(step).collect(),
            completion_limit: (options.completion_timeout_seconds > 0).then(|| for_guest(options.completion_timeout_seconds)),
            timeout_action: options.timeout_action,
        }
    }

    /// What is to be done now.
    pub fn measures(&self, situation: &Situation) -> Vec<Measure> {
        if situation.post_copy {
            return Vec::new();
        }
        let mut measures = Vec::new();
        if self.completion_limit.is_some_and(|limit| situation.elapsed > limit) {
            measures.push(match self.timeout_action {
                TimeoutAction::Abort => Measure::Abort,
                TimeoutAction::ForceComplete => Measure::ForceComplete,
            });
        }
        let due = self.steps.iter().take_while(|(from, _)| *from < situation.elapsed).last();
        if let Some(&(_, milliseconds)) = due
            && situation.downtime_ms != Some(milliseconds)
        {
            measures.push(Measure::SetDowntime { milliseconds });
        }
        measures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(downtime_ms: u64, delay: u64) -> PolicyOptions {
        PolicyOptions {
            downtime_ms,
            downtime_steps: 10,
            downtime_delay_seconds: delay,
            completion_timeout_seconds: 800,
            timeout_action: TimeoutAction::Abort,
        }
    }

    fn steps(policy: &Policy) -> Vec<(u64, u64)> {
        policy.steps.iter().map(|(from, ms)| (from.as_secs(), *ms)).collect()
    }

    fn at(seconds: u64) -> Situation {
        Situation { elapsed: Duration::from_secs(seconds), post_copy: false, downtime_ms: None }
    }

    #[test]
    fn the_steps_are_novas() {
        let defaults = Policy::new(&options(500, 75), weight_bytes(128 << 20, []));
        let expected = [
            (0, 50),
            (150, 95),
            (300, 140),
            (450, 185),
            (600, 230),
            (750, 275),
            (900, 320),
            (1050, 365),
            (1200, 410),
            (1350, 455),
            (1500, 500),
        ];
        assert_eq!(steps(&defaults), expected);
        assert_eq!(defaults.completion_limit, Some(Duration::from_secs(1600)));
        let other = steps(&Policy::new(&options(400, 30), 3 * GIB));
        assert_eq!((other[0], other[1], other[10]), ((0, 40), (90, 76), (900, 400)));
    }

    #[test]
    fn memory_and_each_disk_weigh_at_least_two_gib() {
        assert_eq!(weight_bytes(GIB, []), 2 * GIB);
        assert_eq!(weight_bytes(5 * GIB, [GIB, 10 * GIB]), 17 * GIB);
    }

    #[test]
    fn the_downtime_grows_with_time_and_is_set_once() {
        let policy = Policy::new(&options(500, 75), 2 * GIB);
        assert_eq!(policy.measures(&at(0)), []);
        assert_eq!(policy.measures(&at(1)), [Measure::SetDowntime { milliseconds: 50 }]);
        assert_eq!(policy.measures(&at(150)), [Measure::SetDowntime { milliseconds: 50 }]);
        assert_eq!(policy.measures(&at(151)), [Measure::SetDowntime { milliseconds: 95 }]);
        let set = Situation { downtime_ms: Some(95), ..at(151) };
        assert_eq!(policy.measures(&set), []);
        assert_eq!(policy.measures(&at(1590)), [Measure::SetDowntime { milliseconds: 500 }]);
    }

    #[test]
    fn after_the_completion_timeout_the_configured_action_is_taken_until_it_works() {
        let policy = Policy::new(&options(500, 75), 2 * GIB);
        let late = Situation { downtime_ms: Some(500), ..at(1601) };
        assert_eq!(policy.measures(&late), [Measure::Abort]);
        assert_eq!(policy.measures(&late), [Measure::Abort]);
        let on_time = Situation { elapsed: Duration::from_secs(1600), ..late };
        assert_eq!(policy.measures(&on_time), []);
        let mut force = options(500, 75);
        force.timeout_action = TimeoutAction::ForceComplete;
        assert_eq!(Policy::new(&force, 2 * GIB).measures(&late), [Measure::ForceComplete]);
    }

    #[test]
    fn a_timeout_of_zero_is_never_and_post_copy_is_left_alone() {
        let mut never = options(500, 75);
        never.completion_timeout_seconds = 0;
        let late = Situation { downtime_ms: Some(500), ..at(1_000_000) };
        assert_eq!(Policy::new(&never, 2 * GIB).measures(&late), []);
        let post_copy = Situation { post_copy: true, ..at(1_000_000) };
        assert_eq!(Policy::new(&options(500, 75), 2 * GIB).measures(&post_copy), []);
    }
}
