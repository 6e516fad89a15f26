//! What a conductor counts: one verb for each thing that happens, and the fleet's numbers from the database.
//!
//! An event is counted by the conductor whose write it was, so the sum over all conductors is right. The fleet's numbers are read by
//! each conductor for itself ([`FLEET_EVERY`]), so they are there whichever is asked: a query takes the greatest.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use drover_common::fault::{Fault, FaultClass};
use drover_common::metrics::{
    CLEANUP_DEBTS, DATABASE_CONNECTIONS, DEPENDENCY_UP, FINDINGS_OPEN, FINDINGS_RAISED, HOSTS, LEASES_LOST, MESSAGE_DURATION,
    MIGRATION_BANDWIDTH, MIGRATION_DOWNTIME, MIGRATION_DURATION, MIGRATION_ITERATIONS, MIGRATION_NETWORK_BLACKOUT,
    MIGRATION_PHASE_DURATION, MIGRATION_TRANSFERRED, MIGRATIONS_ENDED, MIGRATIONS_OPEN, OUTBOX_LAG, OUTBOX_UNPUBLISHED, PAUSED,
    POST_COPY_RECOVERIES, QUEUE_DEPTH, QUEUE_OLDEST, QUEUE_WAIT, REFUSALS, ROLL_BACKS, SCHEDULER_DURATION, SLOTS, SLOTS_IN_USE,
};
use drover_common::migration::{JobResult, MigrationStatus};
use drover_common::names;
use drover_store::claims::Limits;
use drover_store::findings::FindingKind;
use drover_store::fleet::{self, Fleet};
use drover_store::migrations::{Ending, Migration};
use drover_store::{StoreError, pause};

use crate::Conductor;

/// Between two looks at the fleet's numbers; less than Prometheus' usual interval.
pub(crate) const FLEET_EVERY: Duration = Duration::from_secs(15);

/// What a queued migration waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    Outgoing,
    Incoming,
    Fleet,
    Paused,
    Other,
}
names!("reason to wait", WaitsFor {
    Outgoing = "outgoing",
    Incoming = "incoming",
    Fleet = "fleet",
    Paused = "paused",
    Other = "other",
});

impl WaitsFor {
    /// By the text that people read.
    fn of(waiting_for: &str) -> Self {
        match waiting_for {
            text if text.starts_with(pause::WAITING_FOR) => Self::Paused,
            text if text.contains("outgoing") => Self::Outgoing,
            text if text.contains("incoming") => Self::Incoming,
            text if text.contains("fleet") => Self::Fleet,
            _ => Self::Other,
        }
    }
}

/// A message was handled.
pub(crate) fn handled(kind: &'static str, took: Duration) {
    MESSAGE_DURATION.took([kind], took);
}

/// The scheduler chose.
pub(crate) fn scheduled(took: Duration) {
    SCHEDULER_DURATION.took([], took);
}

/// Another conductor has taken over.
pub(crate) fn lease_lost() {
    LEASES_LOST.increment([]);
}

/// A migration leaves the queue; `before` is the row as it stood there.
pub(crate) fn left_queue(before: &Migration, after: &Migration) {
    let reason = WaitsFor::of(before.waiting_for.as_deref().unwrap_or_default());
    if let Some(waited) = between(before.updated_at, after.updated_at) {
        QUEUE_WAIT.took([reason.as_str()], waited);
    }
}

/// A roll-back begins.
pub(crate) fn rolls_back(ending: Ending) {
    ROLL_BACKS.increment([ending.as_str()]);
}

/// The source is told to go on with a post-copy.
pub(crate) fn recovers() {
    POST_COPY_RECOVERIES.increment([]);
}

/// A finding was raised.
pub(crate) fn found(kind: FindingKind) {
    FINDINGS_RAISED.increment([kind.as_str()]);
}

/// A host was refused that the scheduler let pass, or that was asked for.
pub(crate) fn refused(fault: &Fault) {
    REFUSALS.increment([fault.class.as_str()]);
}

/// A migration ended; `before` is the row as it was until then.
pub(crate) fn ended(before: &Migration, after: &Migration) {
    MIGRATIONS_ENDED.increment([after.status.as_str(), reason(after.fault.as_ref())]);
    if let Some(took) = between(Some(after.created_at), after.ended_at) {
        MIGRATION_DURATION.took([after.status.as_str()], took);
    }
    for (phase, took) in phases(before, after) {
        MIGRATION_PHASE_DURATION.took([phase], took);
    }
    if let Some(result) = &after.job_result {
        job_ended(result);
    }
    if let Some(blackout) = after.network_blackout() {
        MIGRATION_NETWORK_BLACKOUT.took([], Duration::from_millis(blackout.total_ms().unsigned_abs()));
    }
}

fn reason(fault: Option<&Fault>) -> &'static str {
    fault.map_or("none", |fault| fault.class.as_str())
}

/// What each phase took, by the database's clock; the last one lasted until the end.
fn phases(before: &Migration, after: &Migration) -> Vec<(&'static str, Duration)> {
    let end = after.ended_at;
    let rolled_back_since = before.updated_at.filter(|_| before.status == MigrationStatus::RollingBack);
    let begins = [
        ("waiting", Some(after.created_at)),
        ("preparing", after.claimed_at),
        ("copying", after.started_at),
        ("finishing", after.switched_over_at),
        ("rolling-back", rolled_back_since),
    ];
    let begun: Vec<_> = begins.into_iter().filter_map(|(phase, begin)| Some((phase, begin?))).collect();
    let until = |at: usize| begun.get(at + 1).map(|(_, begin)| *begin).or(end);
    begun.iter().enumerate().filter_map(|(at, (phase, begin))| Some((*phase, between(Some(*begin), until(at))?))).collect()
}

fn between(begin: Option<DateTime<Utc>>, end: Option<DateTime<Utc>>) -> Option<Duration> {
    (end? - begin?).to_std().ok()
}

#[expect(clippy::cast_precision_loss, reason = "bytes and milliseconds of one copy are far below 2^52")]
fn job_ended(result: &JobResult) {
    let sent = result.progress.memory_processed.saturating_add(result.progress.disk_processed).max(0);
    MIGRATION_TRANSFERRED.add([], sent.unsigned_abs());
    MIGRATION_ITERATIONS.observe([], result.progress.iteration as f64);
    if let Some(downtime_ms) = result.downtime_ms {
        MIGRATION_DOWNTIME.observe([], downtime_ms as f64 / 1e3);
    }
    if let Some(total_ms) = result.total_ms.filter(|total_ms| *total_ms > 0) {
        MIGRATION_BANDWIDTH.observe([], sent as f64 / (total_ms as f64 / 1e3));
    }
}

/// Counters begin at 0, so that the first event shows as one.
pub(crate) fn begin(limits: &Limits) {
    for status in MigrationStatus::ALL.iter().filter(|status| status.is_final()) {
        MIGRATIONS_ENDED.add([status.as_str(), reason(None)], 0);
    }
    for class in FaultClass::ALL {
        REFUSALS.add([class.as_str()], 0);
    }
    for ending in Ending::ALL {
        ROLL_BACKS.add([ending.as_str()], 0);
    }
    for kind in FindingKind::ALL {
        FINDINGS_RAISED.add([kind.as_str()], 0);
    }
    for (limit, slots) in [("outgoing", limits.outgoing), ("incoming", limits.incoming), ("fleet", limits.fleet)] {
        SLOTS.set([limit], slots.into());
    }
}

/// Shows the fleet. What is not there any more is 0.
fn show(fleet: &Fleet) {
    let count_of = |counts: &[(String, i64)], name: &str| counts.iter().find(|(is, _)| is == name).map_or(0, |(_, count)| *count);
    for status in MigrationStatus::ALL.iter().filter(|status| !status.is_final()) {
        MIGRATIONS_OPEN.set_count([status.as_str()], count_of(&fleet.open, status.as_str()));
    }
    for reason in WaitsFor::ALL {
        let waiting = fleet.queued.iter().filter(|(waiting_for, _)| WaitsFor::of(waiting_for) == *reason);
        QUEUE_DEPTH.set_count([reason.as_str()], waiting.map(|(_, count)| count).sum());
    }
    for kind in FindingKind::ALL {
        FINDINGS_OPEN.set_count([kind.as_str()], count_of(&fleet.findings, kind.as_str()));
    }
    let counts = &fleet.counts;
    for (limit, used) in [("outgoing", counts.outgoing), ("incoming", counts.incoming), ("fleet", counts.fleet)] {
        SLOTS_IN_USE.set_count([limit], used);
    }
    for (state, hosts) in [("up", counts.hosts_up), ("down", counts.hosts_down), ("forced_down", counts.hosts_forced_down)] {
        HOSTS.set_count([state], hosts);
    }
    QUEUE_OLDEST.set([], fleet.queue_oldest);
    CLEANUP_DEBTS.set_count([], counts.debts);
    OUTBOX_UNPUBLISHED.set_count([], counts.outbox);
    OUTBOX_LAG.set([], counts.outbox_lag);
    PAUSED.set([], f64::from(u8::from(counts.paused)));
}

impl Conductor {
    /// Reads the fleet's numbers anew.
    pub(crate) async fn look_at_the_fleet(self: Arc<Self>) -> Result<(), StoreError> {
        let read = async {
            let mut conn = self.store.connection().await?;
            fleet::read(&mut conn, self.settings.service_down_time).await
        };
        let fleet = read.await;
        DEPENDENCY_UP.set(["database"], f64::from(u8::from(fleet.is_ok())));
        let (idle, used) = self.store.connections();
        for (state, count) in [("idle", idle), ("used", used)] {
            DATABASE_CONNECTIONS.set_count([state], i64::try_from(count).unwrap_or(i64::MAX));
        }
        show(&fleet?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::testing::migration;

    #[test]
    fn what_a_queued_migration_waits_for_is_told_from_its_text() {
        for (text, reason) in [
            ("outgoing slots of h1: 1 of 1 in use", WaitsFor::Outgoing),
            ("incoming slots of h2: 1 of 1 in use", WaitsFor::Incoming),
            ("slots of the fleet: 5 of 5 in use", WaitsFor::Fleet),
            ("paused by admin: new switches, outgoing traffic moves", WaitsFor::Paused),
            ("a free slot", WaitsFor::Other),
            ("", WaitsFor::Other),
        ] {
            assert_eq!(WaitsFor::of(text), reason, "{text}");
        }
    }

    #[test]
    fn each_phase_lasts_until_the_next_one_and_the_last_until_the_end() {
        let at = |seconds| Some(DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds));
        let before = migration(MigrationStatus::PostMigrating, "h1", Some("h2"));
        let mut after = migration(MigrationStatus::Completed, "h1", Some("h2"));
        (after.claimed_at, after.started_at, after.switched_over_at, after.ended_at) = (at(1), at(3), at(63), at(64));
        let seconds = |phases: Vec<(&'static str, Duration)>| -> Vec<_> {
            phases.into_iter().map(|(phase, took)| (phase, took.as_secs())).collect()
        };
        let expected = [("waiting", 1), ("preparing", 2), ("copying", 60), ("finishing", 1)];
        assert_eq!(seconds(phases(&before, &after)), expected);
        let mut before = migration(MigrationStatus::RollingBack, "h1", Some("h2"));
        before.updated_at = at(10);
        (after.switched_over_at, after.ended_at) = (None, at(12));
        let expected = [("waiting", 1), ("preparing", 2), ("copying", 7), ("rolling-back", 2)];
        assert_eq!(seconds(phases(&before, &after)), expected);
        after.claimed_at = None;
        after.started_at = None;
        let refused = migration(MigrationStatus::Accepted, "h1", None);
        assert_eq!(seconds(phases(&refused, &after)), [("waiting", 12)]);
    }
}
