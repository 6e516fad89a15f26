use drover_common::ids::{HostName, MigrationId, ServerId};
use drover_common::migration::Event;
use drover_common::server_group::GroupPolicy;
use drover_store::bandwidth;
use drover_store::claims::{self, Claim, Claimed, Limits};
use drover_store::migrations::{self, advance};
use drover_store::server_groups::{self, NewServerGroup};
use drover_store::servers::{self, Placement};
use drover_store::{hosts, line};
use futures::future::join_all;
use sqlx::PgPool;

use crate::fixture::{add_host, add_server, host, migration};

/// Claimed, over links without a limit.
const YES: Claimed = Claimed::Yes { share_mib: None };
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
    join_all(all).await.into_iter().filter(|claimed| *claimed == YES).count()
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
    assert_eq!(claim(&pool, first.id, first.server, (&h1, &h2), FREE).await, YES);
    let full = claim(&pool, second.id, second.server, (&h1, &h2), FREE).await;
    assert_eq!(full, Claimed::NoRoom { memory_mb: 0, vcpus: 0 });
    assert!(claims::release(&mut conn, first.id).await.unwrap());
    assert!(!claims::release(&mut conn, first.id).await.unwrap(), "given back twice");
    assert_eq!(claim(&pool, second.id, second.server, (&h1, &h2), FREE).await, YES);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn as_many_leave_the_queue_as_there_are_free_slots_and_in_their_order(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    for name in ["h1", "h2"] {
        add_host(&mut conn, name).await;
    }
    let running = migration(&mut conn).await;
    let mut queued = Vec::new();
    for _ in 0..3 {
        let row = migration(&mut conn).await;
        queued.push(advance(&mut conn, &row, Event::NoSlot, |_| ()).await.unwrap().unwrap().id);
    }
    let limits = Limits { outgoing: 2, ..FREE };
    assert_eq!(line::whose_turn(&mut conn, &limits).await.unwrap(), queued[..2]);
    claim(&pool, running.id, running.server, (&host("h1"), &host("h2")), limits).await;
    assert_eq!(line::whose_turn(&mut conn, &limits).await.unwrap(), queued[..1]);
    assert!(line::whose_turn(&mut conn, &Limits { fleet: 1, ..limits }).await.unwrap().is_empty());
    assert_eq!(line::whose_turn(&mut conn, &FREE).await.unwrap(), queued);
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
        let late = rows.iter().zip(&claimed).find(|(_, claimed)| **claimed != YES).unwrap().0;
        let hosts = hosts::snapshot(&mut conn, None, Some(late.server), std::time::Duration::from_mins(1)).await.unwrap();
        let members: Vec<i64> = hosts.iter().map(|host| host.group_members).collect();
        assert_eq!(members, [5, most.into()]);
        for row in rows {
            claims::release(&mut conn, row.id).await.unwrap();
        }
    }
}

/// A claim while others stand in line: a slot that is free may be theirs.
#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_newcomer_does_not_take_the_slot_of_those_who_wait_longer_unless_they_cannot_use_it(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let (h1, h2, h3) = (host("h1"), host("h2"), host("h3"));
    for name in ["h1", "h2", "h3"] {
        add_host(&mut conn, name).await;
    }
    let limits = Limits { outgoing: 2, incoming: 1, ..FREE };
    let (holder, first, newcomer) = (migration(&mut conn).await, migration(&mut conn).await, migration(&mut conn).await);
    assert_eq!(claim(&pool, holder.id, holder.server, (&h1, &h2), limits).await, YES);
    let waits_for_h3 = |row: &mut migrations::Migration| row.slot_hosts = Some(vec![h3.clone()]);
    let queued = advance(&mut conn, &first, Event::NoSlot, waits_for_h3).await.unwrap().unwrap();
    let Claimed::NoSlot(missing) = claim(&pool, newcomer.id, newcomer.server, (&h1, &h3), limits).await else { panic!() };
    let theirs = "outgoing slots of h1: of 2, those that are free belong to migrations before it in the queue";
    assert_eq!((missing.why.as_str(), missing.at_destination), (theirs, false));
    // Its turn has come, and while it is checked again its slot is kept.
    let called = advance(&mut conn, &queued, Event::SlotFreed, |_| ()).await.unwrap().unwrap();
    assert!(called.queued_at.is_some());
    assert!(matches!(claim(&pool, newcomer.id, newcomer.server, (&h1, &h3), limits).await, Claimed::NoSlot(_)));
    // Its destination is full after all: the newcomer may go elsewhere.
    let waits_for_h2 = |row: &mut migrations::Migration| row.slot_hosts = Some(vec![h2.clone()]);
    let queued = advance(&mut conn, &called, Event::NoSlot, waits_for_h2).await.unwrap().unwrap();
    assert_eq!(line::position(&mut conn, queued.id).await.unwrap(), Some(line::Position { in_fleet: 1, at_source: 1 }));
    assert_eq!(claim(&pool, newcomer.id, newcomer.server, (&h1, &h3), limits).await, YES);
    assert!(line::whose_turn(&mut conn, &limits).await.unwrap().is_empty());
    claims::release(&mut conn, holder.id).await.unwrap();
    assert_eq!(line::whose_turn(&mut conn, &limits).await.unwrap(), [queued.id]);
    let closed = advance(&mut conn, &queued, Event::Aborted, |_| ()).await.unwrap().unwrap();
    assert_eq!((closed.queued_at, closed.slot_hosts), (None, None));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_claim_over_links_with_a_limit_begins_with_no_more_than_its_part(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let (h1, h2) = (host("h1"), host("h2"));
    for name in ["h1", "h2"] {
        add_host(&mut conn, name).await;
    }
    let links =
        "UPDATE compute_nodes SET link_bandwidth_mib = CASE host WHEN 'h1' THEN 100 ELSE 60 END, migration_bandwidth_mib = 50";
    sqlx::raw_sql(links).execute(&mut *conn).await.unwrap();
    let (first, second) = (migration(&mut conn).await, migration(&mut conn).await);
    let mut shares = Vec::new();
    for row in [&first, &second] {
        let Claimed::Yes { share_mib } = claim(&pool, row.id, row.server, (&h1, &h2), FREE).await else { panic!() };
        let claimed = advance(&mut conn, row, Event::Claimed, |after| {
            after.destination = Some(h2.clone());
            after.bandwidth_mib = share_mib;
        });
        assert_eq!(claimed.await.unwrap().unwrap().bandwidth_mib, share_mib);
        shares.push(share_mib);
    }
    assert_eq!(shares, [Some(50), Some(30)], "what one may take; half of h2's link");
    let streams = bandwidth::streams(&mut conn).await.unwrap();
    let seen: Vec<_> = streams.iter().map(|s| (s.migration, s.limit_mib, s.source_link_mib, s.destination_link_mib)).collect();
    assert_eq!(seen, [(first.id, 50, 100, 60), (second.id, 50, 100, 60)]);
    bandwidth::set(&mut conn, &[(first.id, Some(30)), (second.id, None)]).await.unwrap();
    let kept = migrations::get(&mut conn, first.id).await.unwrap().unwrap();
    assert_eq!(kept.bandwidth_mib, Some(30));
    let running = advance(&mut conn, &kept, Event::StartGranted, |after| after.bandwidth_mib = Some(99)).await.unwrap().unwrap();
    assert_eq!(running.bandwidth_mib, Some(30), "only the claim and those who share out write it");
    let over = advance(&mut conn, &running, Event::SwitchedOver, |_| ()).await.unwrap().unwrap();
    assert_eq!(over.bandwidth_mib, None);
}
