//! When a copy will end, and what that rests on.
//!
//! In the first pass nobody knows what the guest writes, so nothing is told but how long the pass still takes. From then on it is what
//! is left, divided by what the link carries beyond what the guest writes. What is told never runs backwards: a forecast that is later
//! than what was told before is held back, and the basis says so.

use drover_common::migration::{Outlook, Progress};

/// What was told so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forecast {
    /// The end that was told, in milliseconds since the job began.
    told: Option<i64>,
}

/// Between two samples all is in flux: a forecast that is later by less than this is the same.
const SLACK_MS: i64 = 1000;

impl Forecast {
    /// The outlook with this sample. `leaves`: the guest runs on the other side already, or stands: it writes nothing here.
    pub fn look(&mut self, progress: &Progress, leaves: bool) -> Outlook {
        let left = progress.memory_remaining.max(0).saturating_add(progress.disk_remaining.max(0));
        let speed = progress.bytes_per_second;
        if speed <= 0 {
            return Outlook { eta_ms: None, basis: "nothing is sent just now".to_owned() };
        }
        let this_pass = left.saturating_mul(1000) / speed;
        if progress.iteration < 2 && !leaves {
            let basis = format!("the first pass takes {} s more; what the guest writes meanwhile shows then", this_pass / 1000);
            return Outlook { eta_ms: None, basis };
        }
        let written = if leaves { 0 } else { progress.dirty_bytes_per_second.max(0) };
        if written >= speed {
            return Outlook { eta_ms: None, basis: "the guest writes as fast as the link carries".to_owned() };
        }
        let eta_ms = left.saturating_mul(1000) / (speed - written);
        let end = progress.elapsed_ms.saturating_add(eta_ms);
        if self.told.is_some_and(|told| end > told + SLACK_MS) {
            return Outlook { eta_ms: None, basis: "it takes longer than was told before".to_owned() };
        }
        let end = self.told.map_or(end, |told| end.min(told));
        self.told = Some(end);
        let basis =
            if leaves { "what is left, at the present speed" } else { "what is left, at the speed beyond what the guest writes" };
        Outlook { eta_ms: Some((end - progress.elapsed_ms).max(0)), basis: basis.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(elapsed_ms: i64, iteration: i64, left: i64, speed: i64, written: i64) -> Progress {
        Progress {
            elapsed_ms,
            iteration,
            memory_total: 1000,
            memory_remaining: left,
            bytes_per_second: speed,
            dirty_bytes_per_second: written,
            ..Progress::default()
        }
    }

    #[test]
    fn the_forecast_rests_on_what_the_link_carries_beyond_what_the_guest_writes() {
        let mut forecast = Forecast::default();
        assert_eq!(forecast.look(&sample(0, 1, 1000, 100, 0), false).eta_ms, None, "the first pass");
        assert_eq!(forecast.look(&sample(0, 2, 1000, 100, 100), false).eta_ms, None);
        assert_eq!(forecast.look(&sample(0, 2, 1000, 100, 50), false).eta_ms, Some(20_000));
        assert_eq!(forecast.look(&sample(1000, 2, 1000, 100, 80), true).eta_ms, Some(10_000), "the guest has left");
    }

    #[test]
    fn what_is_told_never_runs_backwards() {
        let mut forecast = Forecast::default();
        let mut last = i64::MAX;
        for (second, left) in (0..).zip([1000, 900, 1500, 700, 650, 400, 450, 100, 20]) {
            let outlook = forecast.look(&sample(second * 1000, 2, left, 100, 0), false);
            assert!(!outlook.basis.is_empty());
            if let Some(eta_ms) = outlook.eta_ms {
                let end = second * 1000 + eta_ms;
                assert!(end <= last, "{second} s: {end} after {last}");
                last = end;
            }
        }
        assert!(last < 10_000);
    }
}
