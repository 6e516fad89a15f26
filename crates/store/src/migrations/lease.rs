//! Leases: one drive of a migration at a time, in whichever conductor, and no event is missed.
//!
//! [`take`] counts the event and takes the lease if it is free. Who finds it held goes away: the holder sees the count when it
//! wants to let go ([`release`]) and goes round once more. A holder that died loses the lease when its time is up, and the sweep
//! ([`due`]) finds the row. A lease says who drives; it protects nothing by itself: every write is a compare-and-swap.

use std::time::Duration;

use drover_common::ids::{Incarnation, MigrationId};
use sqlx::PgConnection;

use super::read::{Migration, Record};
use crate::claims::Limits;
use crate::error::StoreError;

/// How long a driver may be silent before another takes over.
pub const LEASE: Duration = Duration::from_secs(5);

/// Counts an event for this migration and takes the lease for `me`, a drive that has just begun, if nobody has it. `None`: it is
/// closed, unknown, or driven already, and that drive will see the event.
pub async fn take(conn: &mut PgConnection, id: MigrationId, me: Incarnation) -> Result<Option<Migration>, StoreError> {
    let row = sqlx::query_as!(
        Record,
        "UPDATE migrations SET wanted = wanted + 1,
                driven_by = CASE WHEN driven_by IS NULL OR lease_until < clock_timestamp() THEN $2 ELSE driven_by END,
                lease_until = CASE WHEN driven_by IS NULL OR lease_until < clock_timestamp()
                                   THEN clock_timestamp() + make_interval(secs => $3) ELSE lease_until END
         WHERE id = $1 AND status NOT IN ('completed', 'failed', 'cancelled', 'error')
         RETURNING *",
        id.0,
        me.0,
        crate::seconds(LEASE),
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("migrations.take"))?;
    Ok(row.map(Record::read).transpose()?.filter(|migration| migration.driven_by == Some(me)))
}

/// Counts an event for this migration without a driver for it: the sweep takes it up.
pub async fn note(conn: &mut PgConnection, id: MigrationId) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE migrations SET wanted = wanted + 1, deadline = now()
         WHERE id = $1 AND status NOT IN ('completed', 'failed', 'cancelled', 'error')",
        id.0,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("migrations.note"))?;
    Ok(())
}

/// Goes on with the lease and reads the row anew. `None`: the lease is lost, or the migration closed.
pub async fn renew(conn: &mut PgConnection, id: MigrationId, me: Incarnation) -> Result<Option<Migration>, StoreError> {
    let row = sqlx::query_as!(
        Record,
        "UPDATE migrations SET lease_until = clock_timestamp() + make_interval(secs => $3)
         WHERE id = $1 AND driven_by = $2 AND status NOT IN ('completed', 'failed', 'cancelled', 'error') RETURNING *",
        id.0,
        me.0,
        crate::seconds(LEASE),
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("migrations.renew"))?;
    row.map(Record::read).transpose()
}

/// Lets go, if no event came since `seen`; the sweep looks again in `look_again_in`. `false`: something came, go round once more.
pub async fn release(
    conn: &mut PgConnection,
    id: MigrationId,
    me: Incarnation,
    seen: i64,
    look_again_in: Duration,
    waiting_for: Option<&str>,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE migrations SET driven_by = NULL, lease_until = NULL, deadline = now() + make_interval(secs => $4), waiting_for = $5
         WHERE id = $1 AND driven_by = $2 AND wanted = $3",
        id.0,
        me.0,
        seen,
        crate::seconds(look_again_in),
        waiting_for,
    )
    .execute(&mut *conn)
    .await
    .map_err(StoreError::query("migrations.release"))?;
    if done.rows_affected() == 1 {
        return Ok(true);
    }
    let mine = sqlx::query_scalar!(r#"SELECT driven_by = $2 AS "mine" FROM migrations WHERE id = $1"#, id.0, me.0)
        .fetch_optional(conn)
        .await
        .map_err(StoreError::query("migrations.release"))?;
    Ok(mine.flatten() != Some(true))
}

/// Open migrations that nobody drives and whose time has come, the longest overdue first. Queued ones wait for a slot, not for
/// a time: [`may_leave_queue`].
pub async fn due(conn: &mut PgConnection, limit: i64) -> Result<Vec<MigrationId>, StoreError> {
    let rows = sqlx::query_scalar!(
        "SELECT id FROM migrations
         WHERE status NOT IN ('completed', 'failed', 'cancelled', 'error')
           AND (status <> 'queued' OR abort_requested_at IS NOT NULL)
           AND deadline < now() AND (driven_by IS NULL OR lease_until < now())
         ORDER BY deadline LIMIT $1",
        limit
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("migrations.due"))?;
    Ok(rows.into_iter().map(MigrationId).collect())
}

/// Queued migrations that a free slot of their source (and of the fleet) waits for, in the order of their requests: as many for
/// each source as it has free slots; none in a pause. Whether the destination has one shows when it is claimed.
pub async fn may_leave_queue(conn: &mut PgConnection, limits: &Limits) -> Result<Vec<MigrationId>, StoreError> {
    let rows = sqlx::query_scalar!(
        r#"SELECT id AS "id!" FROM (
               SELECT id, source_compute, row_number() OVER (PARTITION BY source_compute ORDER BY id) AS place
               FROM migrations WHERE status = 'queued') q
           WHERE NOT EXISTS (SELECT FROM pause) AND ($1::bigint = 0 OR place <= $1 - (SELECT count(*) FROM claims WHERE source_host = q.source_compute))
           ORDER BY id
           LIMIT CASE WHEN $2::bigint = 0 THEN 1000 ELSE greatest(0, $2 - (SELECT count(*) FROM claims)) END"#,
        i64::from(limits.outgoing),
        i64::from(limits.fleet),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("migrations.may_leave_queue"))?;
    Ok(rows.into_iter().map(MigrationId).collect())
}

/// Open migrations in which a host takes part and that may want to know that it is back.
pub async fn touching_host(conn: &mut PgConnection, host: &str) -> Result<Vec<MigrationId>, StoreError> {
    let rows = sqlx::query_scalar!(
        "SELECT id FROM migrations
         WHERE (source_compute = $1 OR dest_compute = $1) AND status NOT IN ('completed', 'failed', 'cancelled', 'error') ORDER BY id",
        host
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("migrations.touching_host"))?;
    Ok(rows.into_iter().map(MigrationId).collect())
}
