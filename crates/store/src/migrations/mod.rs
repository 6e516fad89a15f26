//! Migrations: one row each, the record that decides.
//!
//! - Every edge of the status table is one compare-and-swap on (status, revision): [`advance`]. [`amend`] changes what was found
//!   out, without an edge, under the same guard.
//! - Who drives a row holds its lease ([`lease`]); grants to agents need no lease, the compare-and-swap protects them.
//! - Each phase and each decision leaves a line ([`steps`]).
//! - Requests to abort or to force completion are columns that anybody may set; they change no revision. Nor do the priority
//!   ([`crate::line`]) and the share of the links ([`crate::bandwidth`]).

pub mod lease;
mod read;
pub mod steps;

use std::time::Duration;

use drover_common::fault::Fault;
use drover_common::ids::{Attempt, HostName, MigrationId, RequestId, ServerId};
use drover_common::migration::{Event, JobResult, Progress, status};
use drover_common::names;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::error::StoreError;
use crate::{bandwidth, line};
pub use read::{
    Listing, Migration, exists, get, in_line, in_progress_of_server, list, open_of_server, open_of_servers, watched_by_source,
};
use read::{Record, json};

/// What a roll-back shall end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Another try, with another destination.
    Retry,
    /// `failed`.
    Failed,
    /// `cancelled`.
    Cancelled,
}
names!("ending", Ending { Retry = "retry", Failed = "failed", Cancelled = "cancelled" });

/// A host that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The host.
    pub host: HostName,
    /// Why.
    #[serde(flatten)]
    pub fault: Fault,
}

/// What the API accepts.
#[derive(Debug, Clone)]
pub struct NewMigration {
    /// The guest.
    pub server: ServerId,
    /// Where it is.
    pub source: HostName,
    /// Where it shall go, if that was said.
    pub requested_host: Option<HostName>,
    /// Whether that host is to be taken without asking the scheduler's filters.
    pub skip_scheduler: bool,
    /// Copy the disks: yes, no, or each for itself.
    pub block_migration: Option<bool>,
    /// Let disks be promised more than there is.
    pub disk_over_commit: Option<bool>,
    /// Who asked.
    pub user_id: String,
    /// In which project.
    pub project_id: String,
    /// By which request.
    pub request_id: RequestId,
    /// The instance action.
    pub action: i64,
    /// The API process that waits for the prechecks.
    pub reply_to: Option<String>,
    /// The W3C trace context of the request.
    pub traceparent: Option<String>,
}

/// Name of the index that allows one open migration a server; a broken one means that there is another.
pub const ONE_OPEN_PER_SERVER: &str = "migrations_one_open_per_server";

/// Writes a new migration, `accepted`.
pub async fn insert(conn: &mut PgConnection, new: &NewMigration) -> Result<MigrationId, StoreError> {
    let id = sqlx::query_scalar!(
        "INSERT INTO migrations (server_uuid, status, source_compute, dest_compute, requested_host, skip_scheduler, block_migration,
                                 disk_over_commit, user_id, project_id, request_id, action_id, reply_to, traceparent)
         VALUES ($1, 'accepted', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING id",
        new.server.0,
        new.source.as_str(),
        // A host that bypasses the scheduler shows at once, unless it is the source itself (which a precheck will say).
        new.requested_host.as_ref().filter(|host| new.skip_scheduler && **host != new.source).map(HostName::as_str),
        new.requested_host.as_ref().map(HostName::as_str),
        new.skip_scheduler,
        new.block_migration,
        new.disk_over_commit,
        new.user_id,
        new.project_id,
        new.request_id.as_str(),
        new.action,
        new.reply_to,
        new.traceparent,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::query("migrations.insert"))?;
    Ok(MigrationId(id))
}

/// Goes along an edge: `change` is given the row as it shall be, its status already set. `None`: the row is no longer as `before`
/// has it; nothing was changed.
pub async fn advance(
    conn: &mut PgConnection,
    before: &Migration,
    event: Event,
    change: impl FnOnce(&mut Migration),
) -> Result<Option<Migration>, StoreError> {
    let Some(to) = status::next(before.status, event) else {
        return Err(StoreError::IllegalEdge { id: before.id, from: before.status, event: format!("{event:?}") });
    };
    let mut after = before.clone();
    after.status = to;
    after.waiting_for = None;
    change(&mut after);
    write(conn, before, &after).await
}

/// Changes what was found out, without an edge. `None`: as in [`advance`].
pub async fn amend(
    conn: &mut PgConnection,
    before: &Migration,
    change: impl FnOnce(&mut Migration),
) -> Result<Option<Migration>, StoreError> {
    let mut after = before.clone();
    change(&mut after);
    write(conn, before, &after).await
}

async fn write(conn: &mut PgConnection, before: &Migration, after: &Migration) -> Result<Option<Migration>, StoreError> {
    let slot_hosts = after.slot_hosts.as_deref().map(line::names);
    let new_data = before.data != after.data; // By far the largest column, and written once an attempt.
    let row = sqlx::query_as!(
        Record,
        "UPDATE migrations SET
             status = $4, revision = revision + 1, attempt = $5, source_node = $6, dest_compute = $7, dest_node = $8, retries = $9,
             refusals = $10, migrate_data = CASE WHEN $25 THEN $11 ELSE migrate_data END, pre_done = $12,
             start_incarnation = $13, ending = $14, waiting_for = $15,
             fault_class = $16, fault_message = $17, deadline = now() + make_interval(secs => $18),
             casts = $19, job_result = $20, recoveries = $21, announced_after_ms = $24,
             queued_at = CASE $4 WHEN 'queued' THEN coalesce(queued_at, clock_timestamp()) WHEN 'accepted' THEN queued_at END,
             slot_hosts = CASE WHEN $4 IN ('accepted', 'queued') THEN $22::text[] END,
             bandwidth_mib = CASE WHEN $4 NOT IN ('preparing', 'running', 'running (post-copy)') THEN NULL
                                  WHEN status = 'accepted' THEN $23 ELSE bandwidth_mib END,
             claimed_at = CASE WHEN $4 = 'preparing' THEN coalesce(claimed_at, clock_timestamp()) ELSE claimed_at END,
             started_at = CASE WHEN $4 = 'running' THEN coalesce(started_at, clock_timestamp()) ELSE started_at END,
             switched_over_at = CASE WHEN $4 = 'post-migrating' THEN coalesce(switched_over_at, clock_timestamp()) ELSE switched_over_at END,
             ended_at = CASE WHEN $4 IN ('completed', 'failed', 'cancelled', 'error') THEN clock_timestamp() END,
             updated_at = clock_timestamp()
         WHERE id = $1 AND status = $2 AND revision = $3
         RETURNING *",
        before.id.0,
        before.status.as_str(),
        before.revision.0,
        after.status.as_str(),
        after.attempt.0,
        after.source_node,
        after.destination.as_ref().map(HostName::as_str),
        after.dest_node,
        after.retries,
        json("migrations", before.id, &after.refusals)?,
        after.data.as_ref().filter(|_| new_data).map(|data| json("migrations", before.id, data)).transpose()?,
        after.pre_done,
        after.start_incarnation.map(|life| life.0),
        after.ending.map(Ending::as_str),
        after.waiting_for,
        after.fault.as_ref().map(|fault| fault.class.as_str()),
        after.fault.as_ref().map(|fault| fault.message.as_str()),
        crate::seconds(after.look_again_in),
        after.casts,
        after.job_result.as_ref().map(|result| json("migrations", before.id, result)).transpose()?,
        after.recoveries,
        slot_hosts.as_deref(),
        after.bandwidth_mib.map(bandwidth::stored),
        after.announced_after_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        new_data,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("migrations.write"))?;
    row.map(Record::read).transpose()
}

/// Asks for an abort. Returns whether the migration is open; the wish of the first who asked stays.
pub async fn request_abort(conn: &mut PgConnection, id: MigrationId, by: &str) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE migrations SET abort_requested_at = coalesce(abort_requested_at, now()),
                abort_requested_by = coalesce(abort_requested_by, $2), updated_at = clock_timestamp()
         WHERE id = $1 AND status NOT IN ('completed', 'failed', 'cancelled', 'error')",
        id.0,
        by,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("migrations.request_abort"))?;
    Ok(done.rows_affected() == 1)
}

/// Asks for completion by force. Returns whether the migration runs.
pub async fn request_force_complete(conn: &mut PgConnection, id: MigrationId, by: &str) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE migrations SET force_complete_requested_at = coalesce(force_complete_requested_at, now()),
                force_complete_requested_by = coalesce(force_complete_requested_by, $2), updated_at = clock_timestamp()
         WHERE id = $1 AND status = 'running'",
        id.0,
        by,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("migrations.request_force_complete"))?;
    Ok(done.rows_affected() == 1)
}

/// Writes an operator's choice between two copies, `host` being one of the migration's two. Returns whether there is anything to
/// choose: the migration is open, and both copies (or an undecidable state) were found.
pub async fn request_keep(conn: &mut PgConnection, id: MigrationId, host: &HostName, by: &str) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE migrations m SET keep_host = $2, keep_requested_by = $3, updated_at = clock_timestamp()
         WHERE id = $1 AND status IN ('running', 'running (post-copy)', 'rolling-back') AND $2 IN (source_compute, dest_compute)
           AND EXISTS (SELECT FROM findings f WHERE f.server_uuid = m.server_uuid AND f.resolved_at IS NULL
                       AND f.kind IN ('ownership_conflict', 'undecidable'))",
        id.0,
        host.as_str(),
        by,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("migrations.request_keep"))?;
    Ok(done.rows_affected() == 1)
}

/// Writes a sample that the source took of a running copy, and puts off the sweep's next look: whoever reports is alive. While a
/// wish is open the look is not put off: the agent may have missed it.
pub async fn record_progress(
    conn: &mut PgConnection,
    id: MigrationId,
    attempt: Attempt,
    source: &HostName,
    progress: &Progress,
    look_again_in: Duration,
) -> Result<Option<ServerId>, StoreError> {
    let server = sqlx::query_scalar!(
        "UPDATE migrations SET memory_total = $3, memory_processed = $4, memory_remaining = $5, disk_total = $6, disk_processed = $7,
                disk_remaining = $8, progress = $9,
                deadline = CASE WHEN abort_requested_at IS NULL AND force_complete_requested_at IS NULL
                                THEN now() + make_interval(secs => $10) ELSE deadline END,
                updated_at = clock_timestamp()
         WHERE id = $1 AND attempt = $2 AND source_compute = $11 AND status IN ('running', 'running (post-copy)')
         RETURNING server_uuid",
        id.0,
        attempt.0,
        progress.memory_total,
        progress.memory_processed,
        progress.memory_remaining,
        progress.disk_total,
        progress.disk_processed,
        progress.disk_remaining,
        json("migrations", id, progress)?,
        crate::seconds(look_again_in),
        source.as_str(),
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("migrations.record_progress"))?;
    Ok(server.map(ServerId))
}

/// Writes libvirt's account of the ended job, once.
pub async fn record_job_result(
    conn: &mut PgConnection,
    id: MigrationId,
    attempt: Attempt,
    result: &JobResult,
) -> Result<(), StoreError> {
    let last = &result.progress;
    sqlx::query!(
        "UPDATE migrations SET job_result = $3, memory_total = $4, memory_processed = $5, memory_remaining = $6, disk_total = $7,
                disk_processed = $8, disk_remaining = $9
         WHERE id = $1 AND attempt = $2 AND job_result IS NULL",
        id.0,
        attempt.0,
        json("migrations", id, result)?,
        last.memory_total,
        last.memory_processed,
        last.memory_remaining,
        last.disk_total,
        last.disk_processed,
        last.disk_remaining,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("migrations.record_job_result"))?;
    Ok(())
}
