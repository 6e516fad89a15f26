//! Claims and slots: what a migration holds from its start to its end, taken in one piece or not at all.

use drover_common::ids::{HostName, MigrationId, ServerId};
use sqlx::PgConnection;

use crate::error::StoreError;
use crate::line::{self, free};
use crate::pause::Pause;
use crate::server_groups;

/// How much may be under way, 0 meaning any number, and how far a host may be promised.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Migrations that leave one host.
    pub outgoing: u32,
    /// Migrations that arrive at one host.
    pub incoming: u32,
    /// Migrations in the fleet.
    pub fleet: u32,
    /// Memory.
    pub ram_allocation_ratio: f64,
    /// CPUs.
    pub cpu_allocation_ratio: f64,
    /// What each host keeps for itself, MiB.
    pub reserved_host_memory_mb: i64,
}

/// What is to be claimed.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// For this migration.
    pub migration: MigrationId,
    /// Of this guest.
    pub server: ServerId,
    /// From here.
    pub source: &'a HostName,
    /// To there.
    pub destination: &'a HostName,
    /// Its size.
    pub vcpus: i32,
    /// Its size.
    pub memory_mb: i32,
    /// Its size.
    pub disk_gb: i32,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It holds everything now.
    Yes {
        /// What it may use of both links for a start, MiB/s, until they are shared out anew; none: they have no limit.
        share_mib: Option<u64>,
    },
    /// No slot is free.
    NoSlot(NoSlot),
    /// The destination has not enough left: this much memory, that many CPUs.
    NoRoom {
        /// MiB.
        memory_mb: i64,
        /// CPUs.
        vcpus: i64,
    },
    /// The server's group forbids the destination, and why.
    GroupPolicy(String),
    /// The destination has vanished from the books.
    NoHost,
}

/// A slot that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSlot {
    /// Which, for people.
    pub why: String,
    /// Whether it is the destination's: another one may have a free slot.
    pub at_destination: bool,
}

/// One key for all conductors: the fleet's count is the only thing that host rows do not protect.
const FLEET_LOCK: i64 = 0x6472_6f76_6572;

/// Takes the claim and all slots, in the caller's transaction. Rows of both hosts are locked in the order of their names, so two
/// that cross cannot wait for each other.
pub async fn take(conn: &mut PgConnection, claim: Claim<'_>, limits: Limits) -> Result<Claimed, StoreError> {
    if limits.fleet > 0 {
        sqlx::query!("SELECT pg_advisory_xact_lock($1)", FLEET_LOCK)
            .execute(&mut *conn)
            .await
            .map_err(StoreError::query("claims.take"))?;
    }
    let hosts = [claim.source.as_str().to_owned(), claim.destination.as_str().to_owned()];
    let links = sqlx::query!(
        "SELECT host, link_bandwidth_mib, migration_bandwidth_mib FROM compute_nodes WHERE host = ANY ($1) ORDER BY host FOR UPDATE",
        &hosts[..]
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::query("claims.take"))?;
    let row = sqlx::query!(
        r#"SELECT n.vcpus, n.memory_mb,
                  (SELECT coalesce(sum(vcpus), 0) FROM servers WHERE host = $1 AND deleted_at IS NULL AND uuid <> $3)
                  + (SELECT coalesce(sum(vcpus), 0) FROM claims WHERE dest_host = $1) AS "vcpus_used!",
                  (SELECT coalesce(sum(memory_mb), 0) FROM servers WHERE host = $1 AND deleted_at IS NULL AND uuid <> $3)
                  + (SELECT coalesce(sum(memory_mb), 0) FROM claims WHERE dest_host = $1) AS "memory_mb_used!",
                  (SELECT count(*) FROM claims WHERE source_host = $2) AS "outgoing!",
                  (SELECT count(*) FROM claims WHERE dest_host = $1) AS "incoming!",
                  (SELECT count(*) FROM claims) AS "fleet!",
                  EXISTS (SELECT FROM migrations WHERE queued_at IS NOT NULL AND id <> $4) AS "line!",
                  EXISTS (SELECT FROM servers WHERE uuid = $3 AND server_group_id IS NOT NULL) AS "group!",
                  (SELECT reason FROM pause) AS pause_reason, (SELECT paused_by FROM pause) AS paused_by
           FROM compute_nodes n WHERE n.host = $1"#,
        claim.destination.as_str(),
        claim.source.as_str(),
        claim.server.0,
        claim.migration.0,
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::query("claims.take"))?;
    let Some(row) = row else { return Ok(Claimed::NoHost) };
    if let Some(by) = &row.paused_by {
        let why = Pause::waiting_for(by, row.pause_reason.as_deref().unwrap_or_default());
        return Ok(Claimed::NoSlot(NoSlot { why, at_destination: false }));
    }
    if let Some(missing) = missing_slot(claim, limits, [row.outgoing, row.incoming, row.fleet], Whose::Claimed) {
        return Ok(Claimed::NoSlot(missing));
    }
    if row.line {
        let taken = line::taken_for_others(&mut *conn, claim.migration, &limits).await?;
        let counts = [taken.outgoing(claim.source.as_str()), taken.incoming(claim.destination.as_str()), taken.fleet()];
        if let Some(missing) = missing_slot(claim, limits, counts, Whose::InLine) {
            return Ok(Claimed::NoSlot(missing));
        }
    }
    if row.group
        && let Some(why) = server_groups::refuse_late(&mut *conn, claim.server, claim.destination.as_str()).await?
    {
        return Ok(Claimed::GroupPolicy(why));
    }
    let memory_mb = room(row.memory_mb, limits.ram_allocation_ratio, row.memory_mb_used, limits.reserved_host_memory_mb);
    let vcpus = room(row.vcpus.into(), limits.cpu_allocation_ratio, row.vcpus_used, 0);
    if memory_mb < claim.memory_mb.into() || vcpus < claim.vcpus.into() {
        return Ok(Claimed::NoRoom { memory_mb, vcpus });
    }
    sqlx::query!(
        "INSERT INTO claims (migration_id, source_host, dest_host, vcpus, memory_mb, disk_gb) VALUES ($1, $2, $3, $4, $5, $6)",
        claim.migration.0,
        claim.source.as_str(),
        claim.destination.as_str(),
        claim.vcpus,
        claim.memory_mb,
        claim.disk_gb,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("claims.take"))?;
    let link = |host: &HostName| links.iter().find(|link| link.host == host.as_str());
    let of = |host: &HostName, count: i64| {
        let mib = link(host).map_or(0, |link| link.link_bandwidth_mib);
        (mib > 0).then(|| (mib / (count + 1)).max(1).unsigned_abs())
    };
    let limit = link(claim.source).map(|link| link.migration_bandwidth_mib).filter(|mib| *mib > 0).map(i64::unsigned_abs);
    let ends = [of(claim.source, row.outgoing), of(claim.destination, row.incoming)];
    let share_mib = ends.into_iter().flatten().min().map(|share| share.min(limit.unwrap_or(share)));
    Ok(Claimed::Yes { share_mib })
}

/// Whom the slots belong to that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Migrations that have them.
    Claimed,
    /// The same, and those in line before this one.
    InLine,
}

/// The first of the slots (outgoing, incoming, the fleet's) of which none is left.
fn missing_slot(claim: Claim<'_>, limits: Limits, counts: [i64; 3], whose: Whose) -> Option<NoSlot> {
    let [outgoing, incoming, fleet] = counts;
    let slots = [
        (format!("outgoing slots of {}", claim.source), outgoing, limits.outgoing),
        (format!("incoming slots of {}", claim.destination), incoming, limits.incoming),
        ("slots of the fleet".to_owned(), fleet, limits.fleet),
    ];
    let missing = slots.into_iter().enumerate().find(|(_, (_, used, limit))| !free(*used, *limit));
    missing.map(|(which, (what, used, limit))| NoSlot {
        why: match whose {
            Whose::Claimed => format!("{what}: {used} of {limit} in use"),
            Whose::InLine => format!("{what}: of {limit}, those that are free belong to migrations before it in the queue"),
        },
        at_destination: which == 1,
    })
}

/// What a host can still promise: its total, less what it keeps, times the ratio, less what is used (placement's rule).
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "sizes of hosts are far below 2^52")]
pub fn room(total: i64, ratio: f64, used: i64, reserved: i64) -> i64 {
    ((total - reserved).max(0) as f64 * ratio).floor() as i64 - used
}

/// Gives back what a migration holds. Returns whether it held anything.
pub async fn release(conn: &mut PgConnection, migration: MigrationId) -> Result<bool, StoreError> {
    let done = sqlx::query!("DELETE FROM claims WHERE migration_id = $1", migration.0)
        .execute(conn)
        .await
        .map_err(StoreError::query("claims.release"))?;
    Ok(done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::room;

    #[test]
    fn room_follows_placements_rule() {
        assert_eq!(room(1000, 1.0, 400, 100), 500);
        assert_eq!(room(1000, 1.5, 400, 0), 1100);
        assert_eq!(room(100, 1.0, 0, 512), 0);
        assert_eq!(room(2, 4.0, 9, 0), -1);
    }
}
