use drover_common::ids::{HostName, MigrationId, ServerId};
use drover_common::migration::Event;
use drover_common::server_group::GroupPolicy;
use drover_store::claims::{self, Claim, Claimed, Limits};
use drover_store::hosts;
use drover_store::migrations::{advance, lease};
use drover_store::server_groups::{self, NewServerGroup};
use drover_store::servers::{self, Placement};
use futures::future::join_all;
use sqlx::PgPool;

use crate::fixture::{add_host, add_server, host, migration};

const FREE: Limits =
    Limits { outgoing: 0, incoming: 0, fleet: 0, ram_allocation_ratio: 1.0, cpu_allocation_ratio: 1.0, reserved_host_memory_mb: 0 };

async fn claim(pool: &PgPool, migration: MigrationId, server: ServerId, hosts: (&HostName, &HostName), limits: Limits) -> Claimed {
    let mut tx = pool.begin().await.unwrap();
    let claim = Claim { migration, server, source: hosts.0, destination: hosts.1, vcpus: 1, memory_mb: 1024, disk_gb: 1 };
    let claimed = claims::take(&mut tx, claim, limits).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

/// Twelve migrations claim at once; returns how many got it.
async fn race(pool: &PgPool, limits: Limits, crossing: bool) -> usize {
    let mut conn = pool.acquire().await.unwrap();
    for name in ["h1", "h2"] {
        add_host(&mut conn, name).await;
    }
    let mut rows = Vec::new();
    for _ in 0..12 {
        rows.push(migration(&mut conn).await);
    }
    drop(conn);
    let (h1, h2) = (host("h1"), host("h2"));
    let all = rows.iter().enumerate().map(|(i, row)| {
        let hosts = if crossing && i % 2 == 1 { (&h2, &h1) } else { (&h1, &h2) };
        claim(pool, row.id, row.server, hosts, limits)
    });
    join_all(all).await.into_iter().filter(|claimed| *claimed == Claimed::Yes).count()
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn racing_claims_never_exceed_the_outgoing_slots(pool: PgPool) {
    assert_eq!(race(&pool, Limits { outgoing: 3, ..FREE }, false).await, 3);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn racing_claims_never_exceed_the_incoming_slots(pool: PgPool) {
    assert_eq!(race(&pool, Limits { incoming: 2, ..FREE }, false).await, 2);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn racing_claims_never_exceed_the_fleets_slots_even_when_they_cross(pool: PgPool) {
    assert_eq!(race(&pool, Limits { fleet: 4, ..FREE }, true).await, 4);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn racing_claims_never_promise_more_memory_than_there_is(pool: PgPool) {
    // 8 GiB, eight CPUs: eight guests of one GiB and one CPU fit.
    assert_eq!(race(&pool, FREE, false).await, 8);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn servers_that_are_there_already_count_and_a_release_gives_back(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let (h1, h2) = (host("h1"), host("h2"));
    for name in ["h1", "h2"] {
        add_host(&mut conn, name).await;
    }
    for _ in 0..7 {
        add_server(&mut conn, "h2").await;
    }
    let (first, second) = (migration(&mut conn).await, migration(&mut conn).await);
    assert_eq!(claim(&pool, first.id, first.server, (&h1, &h2), FREE).await, Claimed::Yes);
    let full = claim(&pool, second.id, second.server, (&h1, &h2), FREE).await;
    assert_eq!(full, Claimed::NoRoom { memory_mb: 0, vcpus: 0 });
    assert!(claims::release(&mut conn, first.id).await.unwrap());
    assert!(!claims::release(&mut conn, first.id).await.unwrap(), "given back twice");
    assert_eq!(claim(&pool, second.id, second.server, (&h1, &h2), FREE).await, Claimed::Yes);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn as_many_leave_the_queue_as_there_are_free_slots_and_in_their_order(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    for name in ["h1", "h2"] {
        add_host(&mut conn, name).await;
    }
    let mut queued = Vec::new();
    for _ in 0..3 {
        let row = migration(&mut conn).await;
        queued.push(advance(&mut conn, &row, Event::NoSlot, |_| ()).await.unwrap().unwrap().id);
    }
    let running = migration(&mut conn).await;
    let limits = Limits { outgoing: 2, ..FREE };
    assert_eq!(lease::may_leave_queue(&mut conn, &limits).await.unwrap(), queued[..2]);
    claim(&pool, running.id, running.server, (&host("h1"), &host("h2")), limits).await;
    assert_eq!(lease::may_leave_queue(&mut conn, &limits).await.unwrap(), queued[..1]);
    assert!(lease::may_leave_queue(&mut conn, &Limits { fleet: 1, ..limits }).await.unwrap().is_empty());
    assert_eq!(lease::may_leave_queue(&mut conn, &FREE).await.unwrap(), queued);
}

/// Of members that move to one host at once, only so many get it as the policy allows: the filters saw none of them there.
#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn racing_members_of_a_group_never_break_its_policy(pool: PgPool) {
    for name in ["h1", "h2"] {
        add_host(&mut pool.acquire().await.unwrap(), name).await;
    }
    for most in [1, 3] {
        let mut conn = pool.acquire().await.unwrap();
        let new = NewServerGroup {
            name: "apart",
            project_id: "project",
            user_id: "user",
            policy: GroupPolicy::AntiAffinity,
            max_server_per_host: Some(most),
        };
        let placement =
            Placement { server_group: Some(server_groups::insert(&mut conn, &new).await.unwrap()), ..Placement::default() };
        let mut rows = Vec::new();
        for _ in 0..6 {
            let row = migration(&mut conn).await;
            assert!(servers::place(&mut conn, row.server, &placement).await.unwrap());
            rows.push(row);
        }
        drop(conn);
        let (h1, h2) = (host("h1"), host("h2"));
        let claimed = join_all(rows.iter().map(|row| claim(&pool, row.id, row.server, (&h1, &h2), FREE))).await;
        let refused = claimed.iter().filter(|claimed| matches!(claimed, Claimed::GroupPolicy(_))).count();
        assert_eq!(refused, 6 - usize::try_from(most).unwrap(), "{claimed:?}");
        // The scheduler's snapshot sees those on their way, too.
        let mut conn = pool.acquire().await.unwrap();
        let late = rows.iter().zip(&claimed).find(|(_, claimed)| **claimed != Claimed::Yes).unwrap().0;
        let hosts = hosts::snapshot(&mut conn, None, Some(late.server), std::time::Duration::from_mins(1)).await.unwrap();
        let members: Vec<i64> = hosts.iter().map(|host| host.group_members).collect();
        assert_eq!(members, [5, most.into()]);
        for row in rows {
            claims::release(&mut conn, row.id).await.unwrap();
        }
    }
}
