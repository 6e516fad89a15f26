//! Drover's policy: Nova's steps and completion timeout, and at each pass over the memory a look whether the copy gets anywhere.
//!
//! ```text
//! not stalled ─────────────────────────────────▶ Nova's steps, by time
//! stalled, the pause fits into the budget ─────▶ the smallest step that suffices, now: waiting for it would bring nothing
//! stalled, it does not, post-copy is permitted ▶ post-copy
//! stalled, it does not, nor is post-copy ──────▶ live_migration_stall_action, and why
//! completion timeout ──────────────────────────▶ live_migration_timeout_action, whatever else
//! ```
//!
//! The budget is `live_migration_downtime`. Auto-converge is QEMU's: while it slows the guest further, the passes before say nothing.

use drover_common::config::StallAction;

use super::nova::{BY_TIME, Nova};
use super::stall::{PASSES, Passes, Stalled};
use super::{Decision, Measure, Policy, PolicyOptions, Situation};
use crate::flags::MigrationFlags;

/// QEMU's own estimate of the bandwidth differs from ours: a pause that is just long enough might not be.
const MARGIN_PERCENT: u64 = 25;

/// What may be done beside a longer pause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Means {
    /// libvirt was told that the job may become post-copy.
    pub post_copy: bool,
    /// libvirt was told to let QEMU slow the guest.
    pub auto_converge: bool,
}

impl Means {
    /// What these flags let a job do.
    pub const fn of(flags: MigrationFlags) -> Self {
        Self {
            post_copy: flags.intersects(MigrationFlags::POSTCOPY),
            auto_converge: flags.intersects(MigrationFlags::AUTO_CONVERGE),
        }
    }
}

/// The policy for one guest.
#[derive(Debug, Clone)]
pub struct Convergence {
    nova: Nova,
    budget_ms: u64,
    means: Means,
    stall_action: StallAction,
    passes: Passes,
    /// What a stall made of the downtime; Nova's step by time if that is more.
    raised_to: Option<(u64, String)>,
    throttle_percent: i32,
    /// What a stall led to.
    resort: Option<Decision>,
    /// Whether it ever stalled, and whether that was taken notice of.
    stalled: bool,
    stall_taken: bool,
}

impl Convergence {
    /// The policy for a guest of this weight (see [`super::weight_bytes`]).
    pub fn new(options: &PolicyOptions, weight_bytes: u64, means: Means) -> Self {
        Self {
            nova: Nova::new(options, weight_bytes),
            budget_ms: options.downtime_ms,
            means,
            stall_action: options.stall_action,
            passes: Passes::default(),
            raised_to: None,
            throttle_percent: 0,
            resort: None,
            stalled: false,
            stall_taken: false,
        }
    }

    fn downtime(&self, now: &Situation) -> Option<(u64, String)> {
        let due = self.nova.due(now.elapsed).map(|milliseconds| (milliseconds, BY_TIME.to_owned()));
        self.raised_to.clone().filter(|(raised, _)| due.as_ref().is_none_or(|(due, _)| raised > due)).or(due)
    }

    /// The copy gets nowhere, and the pause that it now has does not end it.
    fn resort_to(&mut self, now: &Situation, stalled: Stalled) {
        self.stalled = true;
        let why = |what: &str| format!("{}: {what}", self.account(now, stalled));
        let wanted = stalled.needs_ms.saturating_mul(100 + MARGIN_PERCENT) / 100;
        if stalled.needs_ms <= self.budget_ms {
            let step = self.nova.step_for(wanted);
            self.raised_to = Some((step, why(&format!("live_migration_downtime = {} ms allows that", self.budget_ms))));
            self.resort = None;
            self.passes.forget();
            return;
        }
        let (measure, what) = match (self.means.post_copy, self.stall_action) {
            (true, _) => (Measure::PostCopy, "post-copy is permitted".to_owned()),
            (false, StallAction::Abort) => (Measure::Abort, "live_migration_stall_action = \"abort\"".to_owned()),
            (false, StallAction::ForceComplete) => {
                (Measure::ForceComplete, "live_migration_stall_action = \"force_complete\"".to_owned())
            }
            (false, StallAction::None) => (Measure::Wait, self.left_alone()),
        };
        if self.resort.as_ref().is_none_or(|resort| resort.measure != measure) {
            self.resort = Some(Decision { measure, why: why(&what) });
        }
    }

    fn left_alone(&self) -> String {
        let then = match self.nova.completion_limit() {
            Some(limit) => format!("goes on until live_migration_completion_timeout, {} s", limit.as_secs()),
            None => "goes on until the guest writes less".to_owned(),
        };
        format!("live_migration_stall_action = \"none\", it {then}")
    }

    fn account(&self, now: &Situation, stalled: Stalled) -> String {
        let Stalled { needs_ms, dirty, bandwidth } = stalled;
        let mib = |bytes: u64| bytes.saturating_mul(10) / (1 << 20);
        let (dirty, bandwidth) = (mib(dirty), mib(bandwidth));
        let slowed = match (self.means.auto_converge, now.throttle_percent) {
            (false, _) => String::new(),
            (true, percent) => format!(", although auto-converge slows the guest by {percent} %"),
        };
        format!(
            "no progress in {PASSES} passes up to pass {}{slowed}; {}.{} MiB are left at {}.{} MiB/s, a pause of {needs_ms} ms",
            now.iteration,
            dirty / 10,
            dirty % 10,
            bandwidth / 10,
            bandwidth % 10,
        )
    }
}

impl Policy for Convergence {
    fn describe(&self) -> String {
        let last = match (self.means.post_copy, self.stall_action) {
            (true, _) => "post-copy",
            (false, StallAction::None) => "nothing",
            (false, StallAction::Abort) => "abort",
            (false, StallAction::ForceComplete) => "force_complete",
        };
        let slowed = if self.means.auto_converge { "; auto-converge" } else { "" };
        format!("{}; in a stall the downtime at once, else {last}{slowed}", self.nova.describe())
    }

    fn take_stall(&mut self) -> bool {
        self.stalled && !std::mem::replace(&mut self.stall_taken, true)
    }

    fn decide(&mut self, now: &Situation) -> Vec<Decision> {
        if let Some(decision) = self.nova.timed_out(now.elapsed) {
            return vec![decision];
        }
        if now.throttle_percent > self.throttle_percent {
            self.throttle_percent = now.throttle_percent;
            self.passes.forget();
        }
        if let Some(stalled) = self.passes.look(now)
            && now.downtime_ms.is_none_or(|limit| stalled.needs_ms > limit)
        {
            self.resort_to(now, stalled);
        }
        let mut decisions: Vec<Decision> = self.resort.iter().cloned().collect();
        if let Some((milliseconds, why)) = self.downtime(now)
            && now.downtime_ms != Some(milliseconds)
        {
            decisions.push(Decision { measure: Measure::SetDowntime { milliseconds }, why });
        }
        decisions
    }
}

#[cfg(test)]
mod tests {
    use drover_common::config::TimeoutAction;

    use super::*;
    use crate::migration::policy::model::{Copy, Outcome, run};
    use crate::migration::policy::ovirt::Ovirt;
    use crate::migration::policy::proxmox::Proxmox;

    const MIB: u64 = 1 << 20;

    fn options(stall_action: StallAction) -> PolicyOptions {
        PolicyOptions {
            downtime_ms: 500,
            downtime_steps: 10,
            downtime_delay_seconds: 75,
            completion_timeout_seconds: 800,
            timeout_action: TimeoutAction::Abort,
            stall_action,
        }
    }

    fn policy(stall_action: StallAction, means: Means) -> Convergence {
        Convergence::new(&options(stall_action), 2 << 30, means)
    }

    /// A guest of 1 GiB that writes a set of so many MiB at this share of a link of 100 MiB/s.
    fn copy(set_mib: u64, dirty_percent: u64) -> Copy {
        Copy { memory: 1024 * MIB, set: set_mib * MIB, dirty: dirty_percent * MIB, bandwidth: 100 * MIB }
    }

    const POST_COPY: Means = Means { post_copy: true, auto_converge: false };

    #[test]
    fn what_converges_by_itself_is_left_to_novas_steps() {
        for dirty_percent in [0, 20, 50, 80] {
            let (outcome, said) = run(&mut policy(StallAction::Abort, Means::default()), copy(512, dirty_percent));
            assert!(
                matches!(outcome, Outcome::Finished { downtime_ms, .. } if downtime_ms <= 50),
                "{dirty_percent} %: {outcome:?}"
            );
            assert_eq!(said.len(), 1, "only the first step: {said:?}");
        }
    }

    #[test]
    fn a_stall_that_the_budget_covers_ends_at_once_and_not_after_novas_delay() {
        // 30 MiB are written again in each pass: 300 ms.
        let (outcome, said) = run(&mut policy(StallAction::None, Means::default()), copy(30, 150));
        assert!(
            matches!(outcome, Outcome::Finished { after_ms, downtime_ms } if after_ms < 20_000 && downtime_ms <= 500),
            "{outcome:?}"
        );
        let raised = &said[1];
        assert!(
            raised.why.contains("no progress in 3 passes up to pass 6; 30.0 MiB are left at 100.0 MiB/s, a pause of 300 ms"),
            "{raised:?}"
        );
        let (nova, _) = run(&mut Nova::new(&options(StallAction::None), 2 << 30), copy(30, 150));
        assert!(matches!(nova, Outcome::Finished { after_ms, .. } if after_ms > 150_000), "{nova:?}");
    }

    #[test]
    fn without_a_way_to_finish_it_says_so_within_three_passes_and_does_what_is_configured() {
        for (stall_action, means, expected) in [
            (StallAction::None, POST_COPY, Outcome::PostCopy),
            (StallAction::Abort, POST_COPY, Outcome::PostCopy),
            (StallAction::Abort, Means::default(), Outcome::Aborted),
            (StallAction::ForceComplete, Means::default(), Outcome::Forced),
        ] {
            let (outcome, said) = run(&mut policy(stall_action, means), copy(512, 120));
            assert_eq!(outcome, expected);
            let last = said.last().unwrap();
            assert!(last.why.contains("up to pass 6"), "the set is whole from the third pass on: {last:?}");
        }
    }

    #[test]
    fn by_default_a_stall_is_only_told_and_novas_timeout_decides() {
        let (outcome, said) = run(&mut policy(StallAction::None, Means::default()), copy(512, 120));
        assert_eq!(outcome, Outcome::Aborted);
        let told: Vec<_> = said.iter().filter(|decision| decision.measure == Measure::Wait).collect();
        assert_eq!(told.len(), 1);
        assert!(told[0].why.ends_with("it goes on until live_migration_completion_timeout, 1600 s"), "{told:?}");
        assert!(said.last().unwrap().why.contains("live_migration_completion_timeout"), "{said:?}");
    }

    #[test]
    fn while_auto_converge_slows_the_guest_further_nothing_else_is_tried() {
        let mut policy = policy(StallAction::Abort, Means { post_copy: false, auto_converge: true });
        let mut look = |iteration, throttle_percent| {
            let now = Situation {
                elapsed: std::time::Duration::from_secs(2 * u64::try_from(iteration).unwrap()),
                downtime_ms: Some(50),
                iteration,
                remaining: 1 << 30,
                bytes_per_second: 1 << 29,
                throttle_percent,
            };
            policy.decide(&now)
        };
        for iteration in 1..40 {
            let throttle_percent = (20 + i32::try_from(iteration).unwrap() * 2).min(98);
            assert_eq!(look(iteration, throttle_percent), [], "pass {iteration}");
        }
        let then: Vec<_> = (40..60).flat_map(|iteration| look(iteration, 98)).collect();
        assert_eq!(then[0].measure, Measure::Abort);
        assert!(then[0].why.contains("although auto-converge slows the guest by 98 %"), "{:?}", then[0]);
    }

    #[test]
    fn its_rules_are_told_in_one_line() {
        assert_eq!(
            policy(StallAction::None, POST_COPY).describe(),
            "downtime 50 to 500 ms, a step each 150 s; after 1600 s: abort; in a stall the downtime at once, else post-copy"
        );
    }

    /// All four beside each other, on the model of QEMU's pre-copy: who finishes, and what it costs the guest.
    #[test]
    fn the_policies_side_by_side() {
        for dirty_percent in [0, 50, 90, 110, 150] {
            let drover = run(&mut policy(StallAction::None, Means::default()), copy(40, dirty_percent)).0;
            let nova = run(&mut Nova::new(&options(StallAction::None), 2 << 30), copy(40, dirty_percent)).0;
            let ovirt = run(&mut Ovirt::minimal_downtime(), copy(40, dirty_percent)).0;
            let proxmox = run(&mut Proxmox::default(), copy(40, dirty_percent)).0;
            let ends = |outcome: Outcome| match outcome {
                Outcome::Finished { after_ms, downtime_ms } => (after_ms, downtime_ms),
                other => panic!("{dirty_percent} %: {other:?}"),
            };
            let (after_ms, downtime_ms) = ends(drover);
            assert!(after_ms <= ends(nova).0 && downtime_ms <= 500, "{dirty_percent} %: {drover:?}, Nova {nova:?}");
            ends(proxmox);
            ends(ovirt);
        }
    }
}
