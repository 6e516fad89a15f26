//! Reading migrations.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use drover_common::fault::Fault;
use drover_common::ids::{Attempt, HostName, Incarnation, MigrationId, RequestId, Revision, ServerId};
use drover_common::migration::{JobResult, MigrationStatus, NetworkBlackout, Progress};
use drover_common::rpc::latest::MigrateData;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Ending, Refusal};
use crate::error::{BadValue, StoreError};

/// A row of `migrations`. The meaning of each column stands in `migrations/`.
#[expect(missing_docs, reason = "documented once, in the schema")]
#[derive(Debug, Clone)]
pub struct Migration {
    pub id: MigrationId,
    pub uuid: Uuid,
    pub server: ServerId,
    pub migration_type: String,
    pub status: MigrationStatus,
    pub requested_host: Option<HostName>,
    pub skip_scheduler: bool,
    pub block_migration: Option<bool>,
    pub disk_over_commit: Option<bool>,
    pub user_id: String,
    pub project_id: String,
    pub request_id: RequestId,
    pub action: i64,
    pub reply_to: Option<String>,
    pub abort_requested_by: Option<String>,
    pub force_complete_requested_by: Option<String>,
    /// The host whose copy an operator chose in an ownership conflict.
    pub keep: Option<HostName>,
    pub source: HostName,
    pub source_node: Option<String>,
    pub destination: Option<HostName>,
    pub dest_node: Option<String>,
    pub attempt: Attempt,
    pub revision: Revision,
    pub driven_by: Option<Incarnation>,
    /// Events so far; see [`super::lease`].
    pub wanted: i64,
    /// When written: in how long the sweep shall look, if nothing happens before. Not read back.
    pub look_again_in: Duration,
    pub retries: i32,
    /// How often the source was told to go on with a post-copy that broke.
    pub recoveries: i32,
    pub refusals: Vec<Refusal>,
    pub data: Option<MigrateData>,
    pub pre_done: bool,
    /// How often `live_migration` was cast in this attempt.
    pub casts: i32,
    pub start_incarnation: Option<Incarnation>,
    pub ending: Option<Ending>,
    pub waiting_for: Option<String>,
    pub priority: i32,
    pub queued_at: Option<DateTime<Utc>>,
    /// When written as `accepted` or `queued`: the destinations that only lack a slot; none: any may do.
    pub slot_hosts: Option<Vec<HostName>>,
    /// When claimed: what the copy may use for a start. Later it is [`crate::bandwidth`] that writes it.
    pub bandwidth_mib: Option<u64>,
    pub fault: Option<Fault>,
    /// `[memory, disk]` × `[total, processed, remaining]`, bytes; none before the first sample.
    pub counters: [[Option<i64>; 3]; 2],
    pub progress: Option<Progress>,
    pub job_result: Option<JobResult>,
    /// How soon the destination's agent announced the guest, in milliseconds; none if it did not, or before the end.
    pub announced_after_ms: Option<u64>,
    pub created_at: DateTime<Utc>,
    pub claimed_at: Option<DateTime<Utc>>,
    pub started_at: Option<DateTime<Utc>>,
    pub switched_over_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

impl Migration {
    /// How long the network did not reach the guest; none unless both parts of it are known.
    pub fn network_blackout(&self) -> Option<NetworkBlackout> {
        Some(NetworkBlackout {
            downtime_ms: self.job_result.as_ref()?.downtime_ms?,
            announced_after_ms: i64::try_from(self.announced_after_ms?).ok()?,
        })
    }
}

/// When the sweep looks at a row that nobody said anything else about.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

pub(super) struct Record {
    pub(super) id: i64,
    pub(super) uuid: Uuid,
    pub(super) server_uuid: Uuid,
    pub(super) migration_type: String,
    pub(super) status: String,
    pub(super) requested_host: Option<String>,
    pub(super) skip_scheduler: bool,
    pub(super) block_migration: Option<bool>,
    pub(super) disk_over_commit: Option<bool>,
    pub(super) user_id: String,
    pub(super) project_id: String,
    pub(super) request_id: String,
    pub(super) action_id: i64,
    pub(super) reply_to: Option<String>,
    #[expect(dead_code, reason = "read by SELECT *, of use to people only")]
    pub(super) abort_requested_at: Option<DateTime<Utc>>,
    pub(super) abort_requested_by: Option<String>,
    #[expect(dead_code, reason = "read by SELECT *, of use to people only")]
    pub(super) force_complete_requested_at: Option<DateTime<Utc>>,
    pub(super) force_complete_requested_by: Option<String>,
    pub(super) source_compute: String,
    pub(super) source_node: Option<String>,
    pub(super) dest_compute: Option<String>,
    pub(super) dest_node: Option<String>,
    pub(super) attempt: i32,
    pub(super) revision: i64,
    pub(super) driven_by: Option<Uuid>,
    #[expect(dead_code, reason = "compared in SQL, in the database's time")]
    pub(super) lease_until: Option<DateTime<Utc>>,
    pub(super) wanted: i64,
    #[expect(dead_code, reason = "compared in SQL, in the database's time")]
    pub(super) deadline: DateTime<Utc>,
    pub(super) retries: i32,
    pub(super) refusals: Value,
    pub(super) migrate_data: Option<Value>,
    pub(super) pre_done: bool,
    pub(super) casts: i32,
    pub(super) start_incarnation: Option<Uuid>,
    pub(super) ending: Option<String>,
    pub(super) waiting_for: Option<String>,
    pub(super) fault_class: Option<String>,
    pub(super) fault_message: Option<String>,
    pub(super) memory_total: Option<i64>,
    pub(super) memory_processed: Option<i64>,
    pub(super) memory_remaining: Option<i64>,
    pub(super) disk_total: Option<i64>,
    pub(super) disk_processed: Option<i64>,
    pub(super) disk_remaining: Option<i64>,
    pub(super) progress: Option<Value>,
    pub(super) job_result: Option<Value>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) claimed_at: Option<DateTime<Utc>>,
    pub(super) started_at: Option<DateTime<Utc>>,
    pub(super) switched_over_at: Option<DateTime<Utc>>,
    pub(super) ended_at: Option<DateTime<Utc>>,
    pub(super) updated_at: Option<DateTime<Utc>>,
    pub(super) keep_host: Option<String>,
    #[expect(dead_code, reason = "read by SELECT *, of use to people only")]
    pub(super) keep_requested_by: Option<String>,
    pub(super) recoveries: i32,
    pub(super) priority: i32,
    pub(super) queued_at: Option<DateTime<Utc>>,
    pub(super) slot_hosts: Option<Vec<String>>,
    pub(super) bandwidth_mib: Option<i64>,
    pub(super) traceparent: Option<String>,
    pub(super) announced_after_ms: Option<i64>,
}

impl Record {
    pub(super) fn read(self) -> Result<Migration, StoreError> {
        let id = self.id;
        self.parse().map_err(StoreError::row("migrations", id))
    }

    fn parse(self) -> Result<Migration, BadValue> {
        let host = |name: Option<String>| name.map(HostName::new).transpose();
        let fault = self.fault_class.map(|class| Fault::from_stored(&class, self.fault_message.unwrap_or_default()));
        Ok(Migration {
            id: MigrationId(self.id),
            uuid: self.uuid,
            server: ServerId(self.server_uuid),
            migration_type: self.migration_type,
            status: self.status.parse()?,
            requested_host: host(self.requested_host)?,
            skip_scheduler: self.skip_scheduler,
            block_migration: self.block_migration,
            disk_over_commit: self.disk_over_commit,
            user_id: self.user_id,
            project_id: self.project_id,
            request_id: RequestId::from_stored(self.request_id),
            action: self.action_id,
            reply_to: self.reply_to,
            abort_requested_by: self.abort_requested_by,
            force_complete_requested_by: self.force_complete_requested_by,
            keep: host(self.keep_host)?,
            source: HostName::new(self.source_compute)?,
            source_node: self.source_node,
            destination: host(self.dest_compute)?,
            dest_node: self.dest_node,
            attempt: Attempt(self.attempt),
            revision: Revision(self.revision),
            driven_by: self.driven_by.map(Incarnation),
            wanted: self.wanted,
            look_again_in: LOOK_AGAIN,
            retries: self.retries,
            recoveries: self.recoveries,
            refusals: serde_json::from_value(self.refusals)?,
            data: self.migrate_data.map(serde_json::from_value).transpose()?,
            pre_done: self.pre_done,
            casts: self.casts,
            start_incarnation: self.start_incarnation.map(Incarnation),
            ending: self.ending.map(|text| text.parse()).transpose()?,
            waiting_for: self.waiting_for,
            priority: self.priority,
            queued_at: self.queued_at,
            slot_hosts: self.slot_hosts.map(|hosts| hosts.into_iter().map(HostName::new).collect::<Result<_, _>>()).transpose()?,
            bandwidth_mib: self.bandwidth_mib.map(i64::unsigned_abs),
            fault,
            counters: [
                [self.memory_total, self.memory_processed, self.memory_remaining],
                [self.disk_total, self.disk_processed, self.disk_remaining],
            ],
            progress: self.progress.map(serde_json::from_value).transpose()?,
            job_result: self.job_result.map(serde_json::from_value).transpose()?,
            announced_after_ms: self.announced_after_ms.map(i64::unsigned_abs),
            created_at: self.created_at,
            claimed_at: self.claimed_at,
            started_at: self.started_at,
            switched_over_at: self.switched_over_at,
            ended_at: self.ended_at,
            updated_at: self.updated_at,
            traceparent: self.traceparent,
        })
    }
}

pub(super) fn json(table: &'static str, row: impl fmt::Display, value: &impl Serialize) -> Result<Value, StoreError> {
    serde_json::to_value(value).map_err(BadValue::from).map_err(StoreError::row(table, row))
}

fn read_all(rows: Vec<Record>) -> Result<Vec<Migration>, StoreError> {
    rows.into_iter().map(Record::read).collect()
}

/// One migration.
pub async fn get(conn: &mut PgConnection, id: MigrationId) -> Result<Option<Migration>, StoreError> {
    let row = sqlx::query_as!(Record, "SELECT * FROM migrations WHERE id = $1", id.0)
        .fetch_optional(conn)
        .await
        .map_err(StoreError::query("migrations.get"))?;
    row.map(Record::read).transpose()
}

/// Whether there is (or was) a migration with this UUID.
pub async fn exists(conn: &mut PgConnection, uuid: Uuid) -> Result<bool, StoreError> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM migrations WHERE uuid = $1) AS "exists!""#, uuid)
        .fetch_one(conn)
        .await
        .map_err(StoreError::query("migrations.exists"))
}

/// The open migration of a server.
pub async fn open_of_server(conn: &mut PgConnection, server: ServerId) -> Result<Option<Migration>, StoreError> {
    Ok(open_of_servers(conn, &[server.0]).await?.pop())
}

/// The open migrations of these servers, at most one each.
pub async fn open_of_servers(conn: &mut PgConnection, servers: &[Uuid]) -> Result<Vec<Migration>, StoreError> {
    let rows = sqlx::query_as!(
        Record,
        "SELECT * FROM migrations WHERE server_uuid = ANY ($1) AND status NOT IN ('completed', 'failed', 'cancelled', 'error')",
        servers
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("migrations.open_of_servers"))?;
    read_all(rows)
}

/// A server's live migrations in the four states that Nova lists as in progress, oldest first.
pub async fn in_progress_of_server(conn: &mut PgConnection, server: ServerId) -> Result<Vec<Migration>, StoreError> {
    let rows = sqlx::query_as!(
        Record,
        "SELECT * FROM migrations WHERE server_uuid = $1 AND status NOT IN ('completed', 'failed', 'cancelled', 'error') ORDER BY id",
        server.0
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("migrations.in_progress_of_server"))?;
    Ok(read_all(rows)?.into_iter().filter(|m| m.status.in_progress_for_api()).collect())
}

/// Migrations in line for a slot, the first in line first ([`crate::line`]).
pub async fn in_line(conn: &mut PgConnection, limit: i64) -> Result<Vec<Migration>, StoreError> {
    let rows =
        sqlx::query_as!(Record, "SELECT * FROM migrations WHERE queued_at IS NOT NULL ORDER BY priority DESC, id LIMIT $1", limit)
            .fetch_all(conn)
            .await
            .map_err(StoreError::query("migrations.in_line"))?;
    read_all(rows)
}

/// Open migrations that may have a job on this host as their source.
pub async fn watched_by_source(conn: &mut PgConnection, host: &HostName) -> Result<Vec<Migration>, StoreError> {
    let rows = sqlx::query_as!(
        Record,
        "SELECT * FROM migrations WHERE source_compute = $1 AND status IN ('running', 'running (post-copy)')",
        host.as_str()
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("migrations.watched_by_source"))?;
    read_all(rows)
}

/// What a listing of `/os-migrations` asks for.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Source or destination.
    pub host: Option<String>,
    /// Source.
    pub source_compute: Option<String>,
    /// Exactly this status, as the API shows it.
    pub status: Option<String>,
    /// Only this type.
    pub migration_type: Option<String>,
    /// Only this server's.
    pub server: Option<Uuid>,
    /// Only this requester's.
    pub user_id: Option<String>,
    /// Only this project's.
    pub project_id: Option<String>,
    /// Changed at this time or after it.
    pub changes_since: Option<DateTime<Utc>>,
    /// Changed at this time or before it.
    pub changes_before: Option<DateTime<Utc>>,
    /// After this one in the order of the listing.
    pub marker: Option<Uuid>,
    /// At most so many; none: all.
    pub limit: Option<i64>,
}

/// Migrations, newest first.
pub async fn list(conn: &mut PgConnection, listing: &Listing) -> Result<Vec<Migration>, StoreError> {
    // What the API calls `running` may be one of two statuses here.
    let statuses: Option<Vec<String>> = listing
        .status
        .as_ref()
        .map(|wanted| MigrationStatus::ALL.iter().filter(|s| s.in_api() == wanted).map(ToString::to_string).collect());
    let rows = sqlx::query_as!(
        Record,
        "SELECT * FROM migrations m
         WHERE ($1::text IS NULL OR source_compute = $1 OR dest_compute = $1)
           AND ($2::text IS NULL OR source_compute = $2)
           AND ($3::text[] IS NULL OR status = ANY ($3))
           AND ($4::text IS NULL OR migration_type = $4)
           AND ($5::uuid IS NULL OR server_uuid = $5)
           AND ($6::text IS NULL OR user_id = $6)
           AND ($7::text IS NULL OR project_id = $7)
           AND ($8::timestamptz IS NULL OR coalesce(updated_at, created_at) >= $8)
           AND ($9::timestamptz IS NULL OR coalesce(updated_at, created_at) <= $9)
           AND ($10::uuid IS NULL OR (created_at, id) < (SELECT n.created_at, n.id FROM migrations n WHERE n.uuid = $10))
         ORDER BY created_at DESC, id DESC LIMIT $11",
        listing.host,
        listing.source_compute,
        statuses.as_deref(),
        listing.migration_type,
        listing.server,
        listing.user_id,
        listing.project_id,
        listing.changes_since,
        listing.changes_before,
        listing.marker,
        listing.limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("migrations.list"))?;
    read_all(rows)
}
