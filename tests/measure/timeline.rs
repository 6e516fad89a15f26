//! When each step of one migration through Drover happened.

use std::time::Duration;

use drover_testkit::api::timestamp;
use drover_testkit::{BenchError, Result};
use serde_json::Value;

use crate::clock::{Span, ms_between};

/// Moments of one migration, since the epoch, all by the same machine's clock: of this program, of the row, of the logs.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    /// Just before the POST was written.
    pub sent: Duration,
    /// 202 was read.
    pub accepted: Duration,
    /// The row: the API's transaction began.
    pub created_at: Duration,
    /// The row: destination checked, resources claimed.
    pub claimed_at: Duration,
    /// The row: the source's agent was granted leave.
    pub started_at: Duration,
    /// The agent's log: libvirt's call was entered.
    pub entered: Duration,
    /// The agent's log: it returned.
    pub returned: Duration,
    /// The row: known to run on the destination.
    pub switched_over_at: Duration,
    /// The row: being closed; its transaction is not committed yet.
    pub ended_at: Duration,
    /// The conductor's log: committed. From now on the API says ACTIVE on the destination.
    pub closed: Duration,
}

/// Moments that this program and the logs give, beside the row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    pub sent: Duration,
    pub accepted: Duration,
    pub entered: Duration,
    pub returned: Duration,
    pub closed: Duration,
}

impl Timeline {
    /// From the row as `/drover/v1/migrations/{id}` shows it, and the other marks.
    pub(crate) fn new(row: &Value, marks: Marks) -> Result<Self> {
        let at = |key: &str| {
            let missing = || BenchError::Refused(format!("migration {} has no time {key}: {row}", row["id"]));
            row[key].as_str().and_then(timestamp).ok_or_else(missing)
        };
        let Marks { sent, accepted, entered, returned, closed } = marks;
        Ok(Self {
            sent,
            accepted,
            created_at: at("created_at")?,
            claimed_at: at("claimed_at")?,
            started_at: at("started_at")?,
            entered,
            returned,
            switched_over_at: at("switched_over_at")?,
            ended_at: at("ended_at")?,
            closed,
        })
    }

    /// From the POST to ACTIVE on the destination.
    pub(crate) fn span(&self) -> Span {
        Span { start: self.sent, end: self.closed }
    }

    /// From the POST to its answer, milliseconds.
    pub(crate) fn accepted_ms(&self) -> f64 {
        ms_between(self.sent, self.accepted)
    }

    /// Inside libvirt's call, milliseconds.
    pub(crate) fn call_ms(&self) -> f64 {
        ms_between(self.entered, self.returned)
    }

    /// All that Drover adds before libvirt's call and after it, milliseconds.
    pub(crate) fn control_path_ms(&self) -> f64 {
        ms_between(self.sent, self.entered) + ms_between(self.returned, self.closed)
    }

    /// Each step with its length in milliseconds, in order and without gaps.
    pub(crate) fn steps(&self) -> [(&'static str, f64); 8] {
        [
            ("POST sent → row created: HTTP, checks of the request", ms_between(self.sent, self.created_at)),
            ("→ claimed: commit, conductor, prechecks on both hosts, claim", ms_between(self.created_at, self.claimed_at)),
            ("→ started: destination made ready, order to the source, leave granted", ms_between(self.claimed_at, self.started_at)),
            ("→ libvirt's call entered: commit, leave to the agent", ms_between(self.started_at, self.entered)),
            ("→ libvirt's call returned", self.call_ms()),
            ("→ switched over: look at the guest, report, destination's facts, verdict", {
                ms_between(self.returned, self.switched_over_at)
            }),
            ("→ ended: commit, post steps on both hosts, closing", ms_between(self.switched_over_at, self.ended_at)),
            ("→ closed: the rest of the transaction and its commit", ms_between(self.ended_at, self.closed)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Value {
        json!({"id": 7, "created_at": "1970-01-01T00:00:01.004000", "claimed_at": "1970-01-01T00:00:01.020000",
            "started_at": "1970-01-01T00:00:01.025000", "switched_over_at": "1970-01-01T00:00:02.005000",
            "ended_at": "1970-01-01T00:00:02.012000"})
    }

    fn marks() -> Marks {
        let at = Duration::from_millis;
        Marks { sent: at(1000), accepted: at(1009), entered: at(1030), returned: at(2000), closed: at(2015) }
    }

    #[track_caller]
    fn assert_is(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
    }

    #[test]
    fn the_control_path_is_all_but_libvirts_call() {
        let timeline = Timeline::new(&row(), marks()).unwrap();
        assert_is(timeline.accepted_ms(), 9.0);
        assert_is(timeline.call_ms(), 970.0);
        assert_is(timeline.control_path_ms(), 45.0);
        assert_is(timeline.span().ms(), 1015.0);
    }

    #[test]
    fn the_steps_add_up_to_the_whole() {
        let timeline = Timeline::new(&row(), marks()).unwrap();
        assert_is(timeline.steps().iter().map(|(_, ms)| ms).sum(), timeline.span().ms());
        let lengths = timeline.steps().map(|(_, ms)| ms.round());
        assert_eq!(lengths.map(|ms| format!("{ms}")), ["4", "16", "5", "5", "970", "5", "7", "3"]);
    }

    #[test]
    fn a_row_that_did_not_come_so_far_is_named() {
        let mut row = row();
        row["switched_over_at"] = Value::Null;
        let error = Timeline::new(&row, marks()).unwrap_err().to_string();
        assert!(error.contains("migration 7 has no time switched_over_at"), "{error}");
    }
}
