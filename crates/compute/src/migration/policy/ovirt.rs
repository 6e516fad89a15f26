//! oVirt's way, for comparison (VDSM's convergence schedule): a list of steps, each taken once so many passes brought less left than
//! ever before; `-1` is the last resort, after all others.

use super::{Decision, Measure, Policy, Situation};

/// A step: `{"stallingLimit": limit, "action": action}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Passes without progress, or -1.
    pub limit: i32,
    /// What is done.
    pub action: Measure,
}

/// The policy for one guest.
#[derive(Debug, Clone)]
pub struct Ovirt {
    name: &'static str,
    steps: Vec<Step>,
    next: usize,
    downtime_ms: u64,
    low_water: Option<i64>,
    stalling: i32,
    iteration: i64,
    resort: Option<Measure>,
}

const INITIAL_MS: u64 = 100;

fn set_downtime(limit: i32, milliseconds: u64) -> Step {
    Step { limit, action: Measure::SetDowntime { milliseconds } }
}

impl Ovirt {
    /// A schedule of one's own.
    pub fn new(name: &'static str, steps: Vec<Step>) -> Self {
        Self { name, steps, next: 0, downtime_ms: INITIAL_MS, low_water: None, stalling: 0, iteration: 0, resort: None }
    }

    /// "Minimal downtime": up to 500 ms, then it is taken back.
    pub fn minimal_downtime() -> Self {
        let mut steps = Self::first_steps();
        steps.push(Step { limit: -1, action: Measure::Abort });
        Self::new("minimal downtime", steps)
    }

    /// "Suspend workload if needed": the same, then up to 5 s.
    pub fn suspend_workload() -> Self {
        let mut steps = Self::first_steps();
        steps.push(set_downtime(-1, 5000));
        Self::new("suspend workload", steps)
    }

    /// "Post-copy": the same, then post-copy.
    pub fn post_copy() -> Self {
        let mut steps = Self::first_steps();
        steps.push(Step { limit: -1, action: Measure::PostCopy });
        Self::new("post-copy", steps)
    }

    fn first_steps() -> Vec<Step> {
        [(1, 150), (2, 200), (3, 300), (4, 400), (6, 500)].map(|(limit, ms)| set_downtime(limit, ms)).to_vec()
    }
}

impl Policy for Ovirt {
    fn describe(&self) -> String {
        format!("oVirt's \"{}\": downtime from {INITIAL_MS} ms, {} steps by passes without progress", self.name, self.steps.len())
    }

    fn decide(&mut self, now: &Situation) -> Vec<Decision> {
        if now.iteration > self.iteration {
            self.iteration = now.iteration;
            if self.low_water.is_none_or(|low| now.remaining < low) {
                self.low_water = Some(now.remaining);
                self.stalling = 0;
            } else {
                self.stalling += 1;
            }
            if let Some(step) = self.steps.get(self.next).copied()
                && self.stalling > 0
                && (step.limit < 0 || self.stalling >= step.limit)
            {
                self.next += 1;
                match step.action {
                    Measure::SetDowntime { milliseconds } => self.downtime_ms = milliseconds,
                    other => self.resort = Some(other),
                }
            }
        }
        let why = format!("{} passes without progress", self.stalling);
        let downtime =
            (now.downtime_ms != Some(self.downtime_ms)).then_some(Measure::SetDowntime { milliseconds: self.downtime_ms });
        self.resort.into_iter().chain(downtime).map(|measure| Decision { measure, why: why.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_taken_once_its_limit_is_reached_and_the_last_resort_after_all() {
        let mut policy = Ovirt::minimal_downtime();
        let mut limit = None;
        let mut taken = Vec::new();
        for iteration in 1..12 {
            let now = Situation { iteration, remaining: 1000, downtime_ms: limit, ..Situation::default() };
            for Decision { measure, .. } in policy.decide(&now) {
                if let Measure::SetDowntime { milliseconds } = measure {
                    limit = Some(milliseconds);
                }
                taken.push((iteration, measure));
            }
        }
        let downtime = |milliseconds| Measure::SetDowntime { milliseconds };
        assert_eq!(
            taken[..7],
            [
                (1, downtime(100)),
                (2, downtime(150)),
                (3, downtime(200)),
                (4, downtime(300)),
                (5, downtime(400)),
                (7, downtime(500)),
                (8, Measure::Abort)
            ]
        );
    }
}
