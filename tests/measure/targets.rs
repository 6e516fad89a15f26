//! What Drover wants to reach, and whether it did.

/// Drover's targets.
pub(crate) const CONTROL_PATH_MEDIAN_MS: f64 = 40.0;
pub(crate) const CONTROL_PATH_P95_MS: f64 = 80.0;
pub(crate) const OVER_BARE_CALL_MS: f64 = 60.0;
pub(crate) const ACCEPTED_MS: f64 = 10.0;
pub(crate) const FOUR_AT_ONCE_RATIO: f64 = 1.10;
pub(crate) const RSS_MIB: f64 = 40.0;
pub(crate) const CPU_PERCENT: f64 = 1.0;
pub(crate) const REQUESTS_PER_SECOND: f64 = 300.0;
pub(crate) const LIST_P99_MS: f64 = 60.0;
pub(crate) const FILTER_P99_MS: f64 = 20.0;

/// What a measured value must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A target and what was measured.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What it is about.
    pub what: String,
    /// What is wanted.
    pub bound: Bound,
    /// This was measured.
    pub measured: f64,
    /// Both in this unit.
    pub unit: &'static str,
}

impl Target {
    /// Whether it was reached. What could not be measured was not.
    pub(crate) fn is_reached(&self) -> bool {
        match self.bound {
            Bound::AtMost(limit) => self.measured <= limit,
            Bound::AtLeast(limit) => self.measured >= limit,
        }
    }

    /// Its row: target, limit, measured, verdict.
    pub(crate) fn row(&self) -> Vec<String> {
        let Self { what, bound, measured, unit } = self;
        let (sign, limit) = match bound {
            Bound::AtMost(limit) => ('≤', limit),
            Bound::AtLeast(limit) => ('≥', limit),
        };
        let verdict = if self.is_reached() { "reached" } else { "**missed**" };
        let digits = if unit.is_empty() { 2 } else { 1 };
        vec![what.clone(), format!("{sign} {limit}{unit}"), format!("{measured:.digits$}{unit}"), verdict.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(measured: f64) -> Target {
        Target { what: "the way".to_owned(), bound: Bound::AtMost(40.0), measured, unit: " ms" }
    }

    #[test]
    fn a_limit_may_be_met_but_not_passed() {
        assert!(target(40.0).is_reached());
        assert!(!target(40.01).is_reached());
        assert!(!target(f64::NAN).is_reached());
        let least = |measured| Target { bound: Bound::AtLeast(300.0), ..target(measured) };
        assert!(least(300.0).is_reached());
        assert!(!least(299.9).is_reached());
        assert!(!least(f64::NAN).is_reached());
    }

    #[test]
    fn the_row_says_so() {
        assert_eq!(target(12.345).row(), ["the way", "≤ 40 ms", "12.3 ms", "reached"]);
        assert_eq!(target(99.0).row()[3], "**missed**");
    }
}
