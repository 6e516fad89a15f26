//! Nova's policy: downtime steps and a completion timeout, both by time alone (`nova/virt/libvirt/migration.py`).

use std::time::Duration;

use drover_common::config::TimeoutAction;

use super::{Decision, GIB, Measure, Policy, PolicyOptions, Situation};

/// Nova's policy for one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nova {
    /// From when on, counted from the job's beginning, which downtime applies (milliseconds).
    steps: Vec<(Duration, u64)>,
    completion_limit: Option<Duration>,
    timeout_action: TimeoutAction,
}

impl Nova {
    /// The policy for a guest of this weight (see [`super::weight_bytes`]).
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

    /// The downtime that is due by time; none in the first moment.
    pub(super) fn due(&self, elapsed: Duration) -> Option<u64> {
        self.steps.iter().take_while(|(from, _)| *from < elapsed).last().map(|(_, milliseconds)| *milliseconds)
    }

    /// The smallest step that allows so many milliseconds; the last one if none does.
    pub(super) fn step_for(&self, milliseconds: u64) -> u64 {
        let enough = self.steps.iter().map(|(_, step)| *step).find(|step| *step >= milliseconds);
        enough.or_else(|| self.steps.last().map(|(_, last)| *last)).unwrap_or(milliseconds)
    }

    /// What the completion timeout asks for, if it has passed.
    pub(super) fn timed_out(&self, elapsed: Duration) -> Option<Decision> {
        let limit = self.completion_limit.filter(|limit| elapsed > *limit)?;
        let measure = match self.timeout_action {
            TimeoutAction::Abort => Measure::Abort,
            TimeoutAction::ForceComplete => Measure::ForceComplete,
        };
        Some(Decision { measure, why: format!("it took longer than live_migration_completion_timeout: {} s", limit.as_secs()) })
    }

    /// When the completion timeout comes.
    pub(super) const fn completion_limit(&self) -> Option<Duration> {
        self.completion_limit
    }
}

impl Policy for Nova {
    fn describe(&self) -> String {
        let (first, last) = (self.steps.first().map_or(0, |s| s.1), self.steps.last().map_or(0, |s| s.1));
        let delay = self.steps.get(1).map_or(0, |(delay, _)| delay.as_secs());
        let end = match (self.completion_limit, self.timeout_action) {
            (None, _) => "no completion timeout".to_owned(),
            (Some(limit), TimeoutAction::Abort) => format!("after {} s: abort", limit.as_secs()),
            (Some(limit), TimeoutAction::ForceComplete) => format!("after {} s: force_complete", limit.as_secs()),
        };
        format!("downtime {first} to {last} ms, a step each {delay} s; {end}")
    }

    fn decide(&mut self, now: &Situation) -> Vec<Decision> {
        let mut decisions: Vec<Decision> = self.timed_out(now.elapsed).into_iter().collect();
        if let Some(milliseconds) = self.due(now.elapsed)
            && now.downtime_ms != Some(milliseconds)
        {
            decisions.push(Decision { measure: Measure::SetDowntime { milliseconds }, why: BY_TIME.to_owned() });
        }
        decisions
    }
}

/// Why a step is taken that is due.
pub(super) const BY_TIME: &str = "the next of live_migration_downtime_steps, by live_migration_downtime_delay";

#[cfg(test)]
mod tests {
    use drover_common::config::StallAction;

    use super::*;
    use crate::migration::policy::weight_bytes;

    fn options(downtime_ms: u64, delay: u64) -> PolicyOptions {
        PolicyOptions {
            downtime_ms,
            downtime_steps: 10,
            downtime_delay_seconds: delay,
            completion_timeout_seconds: 800,
            timeout_action: TimeoutAction::Abort,
            stall_action: StallAction::None,
        }
    }

    fn steps(policy: &Nova) -> Vec<(u64, u64)> {
        policy.steps.iter().map(|(from, ms)| (from.as_secs(), *ms)).collect()
    }

    fn measures(policy: &Nova, now: &Situation) -> Vec<Measure> {
        policy.clone().decide(now).into_iter().map(|decision| decision.measure).collect()
    }

    fn at(seconds: u64) -> Situation {
        Situation { elapsed: Duration::from_secs(seconds), ..Situation::default() }
    }

    #[test]
    fn the_steps_are_novas() {
        let defaults = Nova::new(&options(500, 75), weight_bytes(128 << 20, []));
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
        let other = steps(&Nova::new(&options(400, 30), 3 * GIB));
        assert_eq!((other[0], other[1], other[10]), ((0, 40), (90, 76), (900, 400)));
    }

    #[test]
    fn the_downtime_grows_with_time_and_is_set_once() {
        let policy = Nova::new(&options(500, 75), 2 * GIB);
        assert_eq!(measures(&policy, &at(0)), []);
        assert_eq!(measures(&policy, &at(1)), [Measure::SetDowntime { milliseconds: 50 }]);
        assert_eq!(measures(&policy, &at(150)), [Measure::SetDowntime { milliseconds: 50 }]);
        assert_eq!(measures(&policy, &at(151)), [Measure::SetDowntime { milliseconds: 95 }]);
        let set = Situation { downtime_ms: Some(95), ..at(151) };
        assert_eq!(measures(&policy, &set), []);
        assert_eq!(measures(&policy, &at(1590)), [Measure::SetDowntime { milliseconds: 500 }]);
    }

    #[test]
    fn after_the_completion_timeout_the_configured_action_is_taken_until_it_works() {
        let policy = Nova::new(&options(500, 75), 2 * GIB);
        let late = Situation { downtime_ms: Some(500), ..at(1601) };
        assert_eq!(measures(&policy, &late), [Measure::Abort]);
        assert_eq!(measures(&policy, &late), [Measure::Abort]);
        let on_time = Situation { elapsed: Duration::from_secs(1600), ..late };
        assert_eq!(measures(&policy, &on_time), []);
        let mut force = options(500, 75);
        force.timeout_action = TimeoutAction::ForceComplete;
        assert_eq!(measures(&Nova::new(&force, 2 * GIB), &late), [Measure::ForceComplete]);
    }

    #[test]
    fn a_timeout_of_zero_is_never() {
        let mut never = options(500, 75);
        never.completion_timeout_seconds = 0;
        let late = Situation { downtime_ms: Some(500), ..at(1_000_000) };
        assert_eq!(measures(&Nova::new(&never, 2 * GIB), &late), []);
    }

    #[test]
    fn its_rules_are_told_in_one_line() {
        let told = Nova::new(&options(500, 75), 2 * GIB).describe();
        assert_eq!(told, "downtime 50 to 500 ms, a step each 150 s; after 1600 s: abort");
    }
}
