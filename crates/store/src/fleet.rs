//! The fleet in numbers, for gauges and for `drover doctor`. Each statement reads only what is open, by an index, so it costs the
//! same after years as on the first day.

use std::time::Duration;

use sqlx::PgConnection;

use crate::error::StoreError;

/// Groups that one statement returns at most.
const GROUPS_MAX: i64 = 1000;

/// The numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    /// Migrations that have not ended: (status, count).
    pub open: Vec<(String, i64)>,
    /// What queued migrations wait for: (text, count).
    pub queued: Vec<(String, i64)>,
    /// How long the oldest queued migration has been there, seconds.
    pub queue_oldest: f64,
    /// Open findings: (kind, count).
    pub findings: Vec<(String, i64)>,
    /// The rest.
    pub counts: Counts,
}

/// Numbers that stand alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Slots of the host that most leave.
    pub outgoing: i64,
    /// Slots of the host that most arrive at.
    pub incoming: i64,
    /// Slots of the fleet.
    pub fleet: i64,
    /// Agents that are heard of.
    pub hosts_up: i64,
    /// Agents that are not.
    pub hosts_down: i64,
    /// Hosts that an operator asserts to be down.
    pub hosts_forced_down: i64,
    /// Clean-ups that are owed.
    pub debts: i64,
    /// Messages that were promised and are not published.
    pub outbox: i64,
    /// Age of the oldest of them, seconds.
    pub outbox_lag: f64,
    /// Whether new migrations are held back.
    pub paused: bool,
}

/// Counts.
pub async fn read(conn: &mut PgConnection, down_time: Duration) -> Result<Fleet, StoreError> {
    let failed = StoreError::query("fleet.read");
    let rows = sqlx::query!(
        r#"SELECT status, CASE WHEN status = 'queued' THEN waiting_for END AS waiting_for, count(*) AS "count!",
                  coalesce(extract(epoch FROM max(now() - coalesce(updated_at, created_at))), 0)::float8 AS "age!"
           FROM migrations WHERE status NOT IN ('completed', 'failed', 'cancelled', 'error')
           GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $1"#,
        GROUPS_MAX
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(failed)?;
    let mut fleet = Fleet::default();
    for row in rows {
        if row.status == "queued" {
            fleet.queued.push((row.waiting_for.unwrap_or_default(), row.count));
            fleet.queue_oldest = fleet.queue_oldest.max(row.age);
        }
        match fleet.open.last_mut().filter(|(status, _)| *status == row.status) {
            Some((_, count)) => *count += row.count,
            None => fleet.open.push((row.status, row.count)),
        }
    }
    let rows = sqlx::query!(
        r#"SELECT kind, count(*) AS "count!" FROM findings WHERE resolved_at IS NULL GROUP BY 1 LIMIT $1"#,
        GROUPS_MAX
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::query("fleet.read"))?;
    fleet.findings = rows.into_iter().map(|row| (row.kind, row.count)).collect();
    fleet.counts = sqlx::query_as!(
        Counts,
        r#"SELECT
               coalesce((SELECT max(n) FROM (SELECT count(*) AS n FROM claims GROUP BY source_host) c), 0) AS "outgoing!",
               coalesce((SELECT max(n) FROM (SELECT count(*) AS n FROM claims GROUP BY dest_host) c), 0) AS "incoming!",
               (SELECT count(*) FROM claims) AS "fleet!",
               count(*) FILTER (WHERE NOT forced_down AND heard) AS "hosts_up!",
               count(*) FILTER (WHERE NOT forced_down AND NOT heard) AS "hosts_down!",
               count(*) FILTER (WHERE forced_down) AS "hosts_forced_down!",
               (SELECT count(*) FROM cleanup_debts WHERE paid_at IS NULL) AS "debts!",
               (SELECT count(*) FROM outbox WHERE published_at IS NULL) AS "outbox!",
               coalesce((SELECT extract(epoch FROM now() - min(created_at)) FROM outbox WHERE published_at IS NULL), 0)::float8
                   AS "outbox_lag!",
               EXISTS (SELECT FROM pause) AS "paused!"
           FROM (SELECT forced_down, now() - coalesce(last_seen_up, created_at) <= make_interval(secs => $1) AS heard
                 FROM services WHERE binary_name = 'nova-compute') s"#,
        crate::seconds(down_time),
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(StoreError::query("fleet.read"))?;
    Ok(fleet)
}
