//! Medians and how sure they are. Pure; the same values always give the same figures.

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;
/// Where every bootstrap's random numbers begin.
const SEED: u64 = 0x0d70_76e2;

/// Bounds of a 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    pub low: f64,
    pub high: f64,
}

/// What is told of a set of values, in their unit. All of it is NaN for an empty one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    /// The middle value.
    pub median: f64,
    /// Where the median is with 95 % confidence (percentile bootstrap).
    pub interval: Interval,
    /// 95 % of the values are at most this.
    pub p95: f64,
}

impl Summary {
    /// Sums up.
    pub(crate) fn of(values: &[f64]) -> Self {
        let sorted = sorted(values);
        Self { median: middle(&sorted), interval: bootstrap_median(values, SEED), p95: at_per_mille(&sorted, 950) }
    }
}

/// The 95 % interval of the median: the medians of random samples (with replacement) of the values, but for the outermost 5 %.
pub(crate) fn bootstrap_median(values: &[f64], seed: u64) -> Interval {
    let mut random = Random(seed);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sample: Vec<f64> = values.iter().filter_map(|_| values.get(random.below(values.len())).copied()).collect();
            middle(&sorted(&sample))
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Interval { low: at_per_mille(&medians, 25), high: at_per_mille(&medians, 975) }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The median of sorted values.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(half), half.checked_sub(1).and_then(|below| sorted.get(below))) {
        (1, Some(middle), _) => *middle,
        (0, Some(above), Some(below)) => f64::midpoint(*below, *above),
        _ => f64::NAN,
    }
}

/// 99 % of the values are at most this.
pub(crate) fn p99(values: &[f64]) -> f64 {
    at_per_mille(&sorted(values), 990)
}

/// The smallest of the sorted values that so many of 1000 do not exceed (nearest rank).
fn at_per_mille(sorted: &[f64], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// `SplitMix64`: small, good enough to pick samples, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        let scaled = (u128::from(self.next()) * bound as u128) >> 64;
        usize::try_from(scaled).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(upto: u32) -> Vec<f64> {
        (1..=upto).rev().map(f64::from).collect()
    }

    #[track_caller]
    fn assert_is(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_is(Summary::of(&numbers(5)).median, 3.0);
        assert_is(Summary::of(&numbers(4)).median, 2.5);
        assert_is(Summary::of(&[7.0]).median, 7.0);
        assert!(Summary::of(&[]).median.is_nan());
    }

    #[test]
    fn p95_is_a_value_that_occurred() {
        assert_is(Summary::of(&numbers(100)).p95, 95.0);
        assert_is(Summary::of(&numbers(20)).p95, 19.0);
        assert_is(Summary::of(&numbers(5)).p95, 5.0);
        assert_is(p99(&numbers(200)), 198.0);
    }

    #[test]
    fn the_interval_surrounds_the_median_and_shrinks_with_more_values() {
        let (few, many) = (Summary::of(&numbers(10)), Summary::of(&(0..10).flat_map(|_| numbers(10)).collect::<Vec<_>>()));
        for summary in [few, many] {
            assert!(summary.interval.low <= summary.median && summary.median <= summary.interval.high, "{summary:?}");
        }
        assert!(many.interval.high - many.interval.low < few.interval.high - few.interval.low);
        // The order statistics of ten values: their second and ninth bound the median with 97.9 %, third and eighth with 89.1 %.
        assert!(few.interval.low >= 2.0 && few.interval.high <= 9.0, "{few:?}");
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        assert_eq!(Summary::of(&[3.0; 8]).interval, Interval { low: 3.0, high: 3.0 });
    }

    #[test]
    fn a_seed_always_gives_the_same_interval() {
        let values: Vec<f64> = (0..30).map(|i| f64::from(i * i % 17)).collect();
        assert_eq!(bootstrap_median(&values, 1), bootstrap_median(&values, 1));
        let mut random = Random(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf, "SplitMix64's first number for seed 0");
    }

    #[test]
    fn samples_are_picked_from_all_values() {
        let mut random = Random(SEED);
        let picked: std::collections::BTreeSet<usize> = (0..200).map(|_| random.below(5)).collect();
        assert_eq!(picked.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
