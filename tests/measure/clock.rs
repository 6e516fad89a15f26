//! The one clock of a measurement: the machine's wall clock, which PostgreSQL's rows and all logs of the bench carry, too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, since the epoch.
#[expect(clippy::disallowed_methods, reason = "compared with times of rows and logs that the same machine's clock made")]
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds from one moment to another; negative if they happened the other way round.
pub(crate) fn ms_between(from: Duration, to: Duration) -> f64 {
    (to.as_secs_f64() - from.as_secs_f64()) * 1e3
}

/// From the start of something to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Since the epoch.
    pub start: Duration,
    /// Since the epoch.
    pub end: Duration,
}

impl Span {
    /// Its length in milliseconds.
    pub(crate) fn ms(self) -> f64 {
        ms_between(self.start, self.end)
    }

    /// From the first start to the last end of several; empty if there are none.
    pub(crate) fn around(spans: &[Self]) -> Self {
        let start = spans.iter().map(|span| span.start).min().unwrap_or_default();
        let end = spans.iter().map(|span| span.end).max().unwrap_or_default();
        Self { start, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_spans_last_from_the_first_start_to_the_last_end() {
        let span = |start, end| Span { start: Duration::from_millis(start), end: Duration::from_millis(end) };
        assert!((Span::around(&[span(20, 60), span(10, 30), span(15, 70)]).ms() - 60.0).abs() < 1e-9);
        assert!((ms_between(Duration::from_millis(7), Duration::from_millis(5)) + 2.0).abs() < 1e-9);
    }
}
