//! The line: migrations that passed their checks and found no free slot, in the order in which they get one.
//!
//! A higher priority goes first, equal ones in the order of their requests. Who cannot go because its destination is full lets others
//! pass, but those whose turn has come (they are being checked again) keep the slots that they will claim: a newcomer does not
//! get between. What a row waits for is on it: `slot_hosts`, the destinations that only lacked a slot.

use std::collections::HashMap;

use drover_common::ids::{HostName, MigrationId};
use sqlx::PgConnection;

use crate::claims::Limits;
use crate::error::StoreError;

/// Rows whose turn has come that are told at once; the rest are told when these have gone.
const TURNS_MAX: usize = 1000;

/// Who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which migration.
    pub id: MigrationId,
    /// Where it leaves.
    pub source: String,
    /// Where it may go; none: that is not known.
    pub hosts: Option<Vec<String>>,
    /// Whether it is still to be told that its turn has come.
    pub queued: bool,
}

/// The slots that are taken.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    outgoing: HashMap<String, i64>,
    incoming: HashMap<String, i64>,
    fleet: i64,
}

impl Taken {
    /// One more (or several) from `source` to `destination`, if that is known.
    pub fn add(&mut self, source: &str, destination: Option<&str>, count: i64) {
        *self.outgoing.entry(source.to_owned()).or_default() += count;
        if let Some(destination) = destination {
            *self.incoming.entry(destination.to_owned()).or_default() += count;
        }
        self.fleet += count;
    }

    /// Migrations that leave this host.
    pub fn outgoing(&self, host: &str) -> i64 {
        self.outgoing.get(host).copied().unwrap_or(0)
    }

    /// Migrations that arrive at this host.
    pub fn incoming(&self, host: &str) -> i64 {
        self.incoming.get(host).copied().unwrap_or(0)
    }

    /// All of them.
    pub const fn fleet(&self) -> i64 {
        self.fleet
    }

    fn fits(&self, waiting: &Waiting, limits: &Limits) -> bool {
        let hosts = waiting.hosts.as_ref();
        free(self.fleet, limits.fleet)
            && free(self.outgoing(&waiting.source), limits.outgoing)
            && hosts.is_none_or(|hosts| hosts.iter().any(|host| free(self.incoming(host), limits.incoming)))
    }
}

/// Whether one more may be taken; a limit of 0 is none.
pub(crate) fn free(taken: i64, limit: u32) -> bool {
    limit == 0 || taken < i64::from(limit)
}

/// Goes through the line and lets everybody take what is free; returns who could. `taken` is then what there is with them. One that
/// may go to several hosts keeps no slot of any: which it will take is not known.
pub fn serve(line: &[Waiting], taken: &mut Taken, limits: &Limits) -> Vec<MigrationId> {
    let mut turns = Vec::new();
    for waiting in line.iter().filter(|waiting| !waiting.queued).chain(line.iter().filter(|waiting| waiting.queued)) {
        if taken.fits(waiting, limits) {
            let only = waiting.hosts.as_ref().filter(|hosts| hosts.len() == 1);
            taken.add(&waiting.source, only.map(|hosts| hosts[0].as_str()), 1);
            turns.push(waiting.id);
        }
    }
    turns
}

/// Queued migrations whose turn it is, the first in line first; none in a pause ([`crate::pause`]).
pub async fn whose_turn(conn: &mut PgConnection, limits: &Limits) -> Result<Vec<MigrationId>, StoreError> {
    let line = read(conn, None).await?;
    if line.iter().all(|waiting| !waiting.queued) {
        return Ok(Vec::new());
    }
    let mut taken = taken(conn).await?;
    let turns = serve(&line, &mut taken, limits);
    let queued = line.iter().filter(|waiting| waiting.queued && turns.contains(&waiting.id)).map(|waiting| waiting.id);
    Ok(queued.take(TURNS_MAX).collect())
}

/// The slots that are taken, those included that belong to others in line: who stands before `id`, and whose turn has come.
pub(crate) async fn taken_for_others(conn: &mut PgConnection, id: MigrationId, limits: &Limits) -> Result<Taken, StoreError> {
    let line = read(conn, Some(id)).await?;
    let mut taken = taken(conn).await?;
    serve(&line, &mut taken, limits);
    Ok(taken)
}

async fn taken(conn: &mut PgConnection) -> Result<Taken, StoreError> {
    let rows = sqlx::query!(r#"SELECT source_host, dest_host, count(*) AS "count!" FROM claims GROUP BY source_host, dest_host"#)
        .fetch_all(conn)
        .await
        .map_err(StoreError::query("line.taken"))?;
    let mut taken = Taken::default();
    for row in rows {
        taken.add(&row.source_host, Some(&row.dest_host), row.count);
    }
    Ok(taken)
}

/// The line in its order, empty in a pause; with `of` only those who go before that migration, whether or not it stands in line itself.
async fn read(conn: &mut PgConnection, of: Option<MigrationId>) -> Result<Vec<Waiting>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT l.id, l.source_compute, l.slot_hosts, l.status = 'queued' AS "queued!"
           FROM migrations l LEFT JOIN migrations me ON me.id = $1
           WHERE l.queued_at IS NOT NULL
             AND ($1::bigint IS NOT NULL OR NOT EXISTS (SELECT FROM pause))
             AND ($1::bigint IS NULL OR l.id <> me.id AND (l.status <> 'queued' OR l.priority > me.priority
                                                           OR l.priority = me.priority AND l.id < me.id))
           ORDER BY l.priority DESC, l.id"#,
        of.map(|id| id.0),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::query("line.read"))?;
    let waiting = rows.into_iter().map(|row| Waiting {
        id: MigrationId(row.id),
        source: row.source_compute,
        hosts: row.slot_hosts,
        queued: row.queued,
    });
    Ok(waiting.collect())
}

/// Where a migration stands in line, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Among all.
    pub in_fleet: i64,
    /// Among those of its source.
    pub at_source: i64,
}

/// Where a migration stands in line, if it does.
pub async fn position(conn: &mut PgConnection, id: MigrationId) -> Result<Option<Position>, StoreError> {
    sqlx::query_as!(
        Position,
        r#"SELECT in_fleet AS "in_fleet!", at_source AS "at_source!" FROM (
               SELECT id, row_number() OVER (ORDER BY priority DESC, id) AS in_fleet,
                      row_number() OVER (PARTITION BY source_compute ORDER BY priority DESC, id) AS at_source
               FROM migrations WHERE queued_at IS NOT NULL) line
           WHERE id = $1"#,
        id.0,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::query("line.position"))
}

/// Sets a migration's priority. Returns whether it is open.
pub async fn set_priority(conn: &mut PgConnection, id: MigrationId, priority: i32) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE migrations SET priority = $2, updated_at = clock_timestamp()
         WHERE id = $1 AND status NOT IN ('completed', 'failed', 'cancelled', 'error')",
        id.0,
        priority,
    )
    .execute(conn)
    .await
    .map_err(StoreError::query("line.set_priority"))?;
    Ok(done.rows_affected() == 1)
}

/// Host names as they are stored.
pub(crate) fn names(hosts: &[HostName]) -> Vec<String> {
    hosts.iter().map(|host| host.as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        outgoing: 1,
        incoming: 1,
        fleet: 0,
        ram_allocation_ratio: 1.0,
        cpu_allocation_ratio: 1.0,
        reserved_host_memory_mb: 0,
    };

    fn waits(id: i64, source: &str, hosts: &[&str]) -> Waiting {
        let hosts = (!hosts.is_empty()).then(|| hosts.iter().map(|host| (*host).to_owned()).collect());
        Waiting { id: MigrationId(id), source: source.to_owned(), hosts, queued: true }
    }

    fn turns(line: &[Waiting], taken: &[(&str, &str)], limits: Limits) -> Vec<i64> {
        let mut now = Taken::default();
        for (source, destination) in taken {
            now.add(source, Some(destination), 1);
        }
        serve(line, &mut now, &limits).into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn who_waits_for_a_full_destination_lets_the_next_of_its_source_go() {
        let line = [waits(1, "h1", &["h2"]), waits(2, "h1", &["h3"]), waits(3, "h1", &["h4"])];
        assert_eq!(turns(&line, &[("h9", "h2")], LIMITS), [2]);
        assert_eq!(turns(&line, &[], LIMITS), [1]);
        assert!(turns(&line, &[("h1", "h9")], LIMITS).is_empty(), "the source's slot is taken");
    }

    #[test]
    fn one_of_several_destinations_suffices_and_an_unknown_one_may_do() {
        let line = [waits(1, "h1", &["h2", "h3"]), waits(2, "h4", &[])];
        assert_eq!(turns(&line, &[("h9", "h2")], LIMITS), [1, 2]);
        assert_eq!(turns(&line, &[("h9", "h2"), ("h8", "h3")], LIMITS), [2]);
    }

    #[test]
    fn two_sources_get_one_destination_in_their_order() {
        let line = [waits(1, "h1", &["h3"]), waits(2, "h2", &["h3"]), waits(3, "h2", &["h4"])];
        assert_eq!(turns(&line, &[], LIMITS), [1, 3]);
        assert_eq!(turns(&line, &[], Limits { incoming: 2, ..LIMITS }), [1, 2]);
    }

    #[test]
    fn the_fleets_slots_go_to_the_first() {
        let line = [waits(1, "h1", &[]), waits(2, "h2", &[]), waits(3, "h3", &[])];
        assert_eq!(turns(&line, &[("h8", "h9")], Limits { fleet: 3, ..LIMITS }), [1, 2]);
        assert!(turns(&line, &[("h8", "h9")], Limits { fleet: 1, ..LIMITS }).is_empty());
    }

    #[test]
    fn whose_turn_has_come_keeps_its_slot_until_it_claims_it() {
        let mut line = [waits(1, "h1", &["h2"]), waits(2, "h1", &["h3"])];
        line[1].queued = false;
        assert_eq!(turns(&line, &[], LIMITS), [2], "who is being checked already goes first");
        assert_eq!(turns(&line, &[], Limits { outgoing: 2, ..LIMITS }), [2, 1]);
    }
}
