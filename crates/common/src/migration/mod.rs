//! Migrations: their statuses and what is measured of them.

pub mod status;

use serde::{Deserialize, Serialize};

pub use status::{Event, MigrationStatus};

/// One sample of a running copy, from `virDomainGetJobStats`. Bytes, milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Since the job began.
    pub elapsed_ms: i64,
    /// The guest's memory.
    pub memory_total: i64,
    /// Sent so far.
    pub memory_processed: i64,
    /// Still to send in this iteration.
    pub memory_remaining: i64,
    /// The disks that are copied.
    pub disk_total: i64,
    /// Copied so far.
    pub disk_processed: i64,
    /// Still to copy.
    pub disk_remaining: i64,
    /// Passes over the memory so far.
    pub iteration: i64,
    /// Sent per second lately.
    pub bytes_per_second: i64,
    /// What the guest writes per second, as QEMU estimates it after the first pass.
    pub dirty_bytes_per_second: i64,
    /// How much auto-converge slows the guest, percent.
    pub throttle_percent: i32,
    /// When it will end, as its source's agent reckons. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlook: Option<Outlook>,
    /// The limit that its source's agent gave it, MiB/s; 0: none. Nothing while an agent that has just taken it up cannot know.
    /// Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_mib: Option<i64>,
}

/// When a copy will end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlook {
    /// From the sample on, milliseconds; none while nobody can tell, or while it would be later than what was told before.
    pub eta_ms: Option<i64>,
    /// What that rests on, for people.
    pub basis: String,
}

/// Something that was decided about a running copy, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When, by libvirt's clock of the job: milliseconds since it began.
    pub elapsed_ms: i64,
    /// What: `policy` for the rules that it runs by, else the deed.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Progress {
    /// Nova's `progress` of the server: how much of the memory need not be sent any more, 0 to 100.
    pub fn percent(&self) -> i16 {
        if self.memory_total <= 0 {
            return 0;
        }
        let remaining = self.memory_remaining.clamp(0, self.memory_total);
        let done = 100 - (remaining * 100 + self.memory_total / 2) / self.memory_total;
        i16::try_from(done).unwrap_or(100)
    }
}

/// libvirt's account of an ended job (`VIR_DOMAIN_JOB_STATS_COMPLETED`): seen once or lost, never invented.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobResult {
    /// How long the job took, in milliseconds.
    pub total_ms: Option<i64>,
    /// How long the guest's CPUs stood, as QEMU measured it, in milliseconds.
    pub downtime_ms: Option<i64>,
    /// Before the first byte, in milliseconds.
    pub setup_ms: Option<i64>,
    /// The last sample's numbers.
    pub progress: Progress,
    /// How long the agent's call to libvirt took, in milliseconds; none after a re-attachment.
    pub call_ms: Option<i64>,
}

/// How long the network did not reach the guest, as far as its hosts can know: each measured a part of it by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkBlackout {
    /// How long its CPUs stood, in milliseconds ([`JobResult::downtime_ms`]).
    pub downtime_ms: i64,
    /// From libvirt's word that they run on the destination to the first announcement of its agent, in milliseconds.
    pub announced_after_ms: i64,
}

impl NetworkBlackout {
    /// The whole of it, in milliseconds.
    pub const fn total_ms(&self) -> i64 {
        self.downtime_ms.saturating_add(self.announced_after_ms)
    }

    /// What that rests on, for people.
    pub fn basis(&self) -> String {
        let Self { downtime_ms, announced_after_ms } = self;
        format!(
            "QEMU's downtime of {downtime_ms} ms plus {announced_after_ms} ms until the first announcement; what switches need is not \
             in it"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_novas_rounding_and_stays_in_range() {
        let at = |total, remaining| Progress { memory_total: total, memory_remaining: remaining, ..Progress::default() }.percent();
        assert_eq!(at(0, 0), 0);
        assert_eq!(at(1000, 1000), 0);
        assert_eq!(at(1000, 0), 100);
        assert_eq!(at(1000, 254), 75);
        assert_eq!(at(1000, 2000), 0);
        assert_eq!(at(1000, -5), 100);
    }
}
