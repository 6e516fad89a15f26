//! What Drover wants to reach, and whether it did.

/// Drover's targets.
pub(crate) const CONTROL_PATH_MEDIAN_MS: f64 = 40.0;
pub(crate) const CONTROL_PATH_P95_MS: f64 = 80.0;
pub(crate) const OVER_BARE_CALL_MS: f64 = 60.0;
pub(crate) const ACCEPTED_MS: f64 = 10.0;
pub(crate) const FOUR_AT_ONCE_RATIO: f64 = 1.10;
pub(crate) const RSS_MIB: f64 = 40.0;
pub(crate) const CPU_PERCENT: f64 = 1.0;

/// A target and what was measured.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What it is about.
    pub what: String,
    /// At most this.
    pub limit: f64,
    /// This was measured.
    pub measured: f64,
    /// Both in this unit.
    pub unit: &'static str,
}

impl Target {
    /// Whether it was reached. What could not be measured was not.
    pub(crate) fn is_reached(&self) -> bool {
        self.measured <= self.limit
    }

    /// Its row: target, limit, measured, verdict.
    pub(crate) fn row(&self) -> Vec<String> {
        let Self { what, limit, measured, unit } = self;
        let verdict = if self.is_reached() { "reached" } else { "**missed**" };
        let digits = if unit.is_empty() { 2 } else { 1 };
        vec![what.clone(), format!("≤ {limit}{unit}"), format!("{measured:.digits$}{unit}"), verdict.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(measured: f64) -> Target {
        Target { what: "the way".to_owned(), limit: 40.0, measured, unit: " ms" }
    }

    #[test]
    fn a_limit_may_be_met_but_not_passed() {
        assert!(target(40.0).is_reached());
        assert!(!target(40.01).is_reached());
        assert!(!target(f64::NAN).is_reached());
    }

    #[test]
    fn the_row_says_so() {
        assert_eq!(target(12.345).row(), ["the way", "≤ 40 ms", "12.3 ms", "reached"]);
        assert_eq!(target(99.0).row()[3], "**missed**");
    }
}
