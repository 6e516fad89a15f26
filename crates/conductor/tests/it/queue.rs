//! Limits, the queue and the links, with many requests at once and conductors that die.

use std::collections::HashMap;
use std::time::Duration;

use drover_common::ids::{HostName, MigrationId};
use drover_common::migration::{MigrationStatus, Progress};
use drover_store::bandwidth;
use drover_store::migrations::{self, Migration, steps};
use futures::future::join_all;
use sqlx::PgPool;

use crate::fleet::Fleet;
use crate::world::host;

/// The longest that anything here may take that nobody is killed in.
const SOON: Duration = Duration::from_secs(30);

fn all_ended(all: &[Migration]) -> bool {
    all.iter().all(|migration| migration.status.is_final())
}

fn count(all: &[Migration], status: MigrationStatus) -> usize {
    all.iter().filter(|migration| migration.status == status).count()
}

/// The most migrations at a time for each key, by what the database itself noted of each phase: a slot is held from `preparing` to
/// the end. A claim is noted after the commit that freed its slot, so the order of the notes is the order of the slots.
async fn most_at_a_time(fleet: &Fleet, all: &[Migration], key: impl Fn(&Migration) -> String) -> HashMap<String, i64> {
    let mut events = Vec::new();
    let mut conn = fleet.store.connection().await.unwrap();
    for migration in all {
        let phases = steps::of_migration(&mut conn, migration.id).await.unwrap();
        let phases: Vec<_> = phases.iter().filter(|step| step.kind == "phase").collect();
        let began = phases.iter().find(|step| step.what == "preparing").map(|step| step.at);
        let ended = phases.iter().find(|step| ["completed", "failed", "cancelled", "error"].contains(&step.what.as_str()));
        assert!(phases.iter().filter(|step| step.what == "preparing").count() <= 1, "tried once: {phases:?}");
        if let (Some(began), Some(ended)) = (began, ended) {
            events.push((began, 1, key(migration)));
            events.push((ended.at, -1, key(migration)));
        }
    }
    events.sort();
    let (mut now, mut most) = (HashMap::<String, i64>::new(), HashMap::<String, i64>::new());
    for (_, change, key) in events {
        let held = now.entry(key.clone()).or_default();
        *held += change;
        let most = most.entry(key).or_default();
        *most = (*most).max(*held);
    }
    most
}

fn destination(migration: &Migration) -> String {
    migration.destination.as_ref().map_or_else(String::new, ToString::to_string)
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn no_limit_is_ever_exceeded_by_200_requests_at_once_while_conductors_are_killed(pool: PgPool) {
    const HOSTS: usize = 6;
    let options = "max_concurrent_live_migrations = 2\nmax_concurrent_incoming_live_migrations = 2\n\
                   max_concurrent_fleet_live_migrations = 7";
    let mut fleet = Fleet::new(pool, HOSTS, 0, options).await;
    let name = |n: usize| host(&format!("h{}", n % HOSTS + 1));
    let mut guests = Vec::new();
    for n in 0..200 {
        guests.push((fleet.guest(n, &name(n)).await, (n % 3 == 0).then(|| name(n + 1 + n % (HOSTS - 1)))));
    }
    for _ in 0..3 {
        fleet.start_conductor();
    }
    join_all(guests.iter().map(|(server, to)| fleet.live_migrate(*server, to.clone()))).await;
    for ended in [20, 70, 120] {
        let holding = |all: &[Migration]| {
            let open = all.iter().filter(|migration| !migration.status.is_final());
            all.len() - open.clone().count() >= ended && open.clone().any(|m| m.status != MigrationStatus::Queued)
        };
        fleet.until(Duration::from_mins(2), holding).await;
        fleet.kill_conductor();
        fleet.start_conductor();
    }
    let all = fleet.until(Duration::from_mins(2), all_ended).await;
    assert_eq!(count(&all, MigrationStatus::Completed), 200);
    let outgoing = most_at_a_time(&fleet, &all, |migration| migration.source.to_string()).await;
    assert!(outgoing.values().all(|most| *most <= 2), "{outgoing:?}");
    let incoming = most_at_a_time(&fleet, &all, destination).await;
    assert!(incoming.values().all(|most| *most <= 2), "{incoming:?}");
    let in_all = most_at_a_time(&fleet, &all, |_| "fleet".to_owned()).await["fleet"];
    assert!((2..=7).contains(&in_all), "{in_all}");
    let there: usize = (0..HOSTS).map(|n| fleet.hypervisors.guests_on(&name(n))).sum();
    assert_eq!(there, 200);
    for migration in &all {
        assert_eq!(migration.queued_at, None, "{migration:?}");
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn who_waits_for_a_full_destination_does_not_hold_up_others_of_its_source(pool: PgPool) {
    let options = "max_concurrent_live_migrations = 2\nmax_concurrent_incoming_live_migrations = 1";
    let mut fleet = Fleet::new(pool, 4, 0, options).await;
    fleet.hypervisors.let_copies_take(None);
    let mut servers = Vec::new();
    for n in 0..4 {
        servers.push(fleet.guest(n, &host("h1")).await);
    }
    fleet.start_conductor();
    let status = |all: &[Migration], id: MigrationId| all.iter().find(|m| m.id == id).map(|m| m.status);
    let first = fleet.live_migrate(servers[0], Some(host("h2"))).await;
    fleet.until(SOON, |all| status(all, first) == Some(MigrationStatus::Running)).await;
    let blocked = fleet.live_migrate(servers[1], Some(host("h2"))).await;
    let all = fleet.until(SOON, |all| status(all, blocked) == Some(MigrationStatus::Queued)).await;
    let waiting = all.iter().find(|m| m.id == blocked).unwrap();
    assert_eq!(waiting.waiting_for.as_deref(), Some("incoming slots of h2: 1 of 1 in use"));
    assert_eq!(waiting.slot_hosts, Some(vec![host("h2")]));
    let second = fleet.live_migrate(servers[2], Some(host("h3"))).await;
    fleet.until(SOON, |all| status(all, second) == Some(MigrationStatus::Running)).await;
    // Both slots of h1 are in use; the next to get free goes to who can use it.
    let third = fleet.live_migrate(servers[3], Some(host("h4"))).await;
    fleet.until(SOON, |all| status(all, third) == Some(MigrationStatus::Queued)).await;
    assert!(fleet.abort(second).await);
    let all = fleet.until(SOON, |all| status(all, third) == Some(MigrationStatus::Running)).await;
    assert_eq!(status(&all, blocked), Some(MigrationStatus::Queued), "h2 is still full");
    fleet.hypervisors.let_copies_take(Some(Duration::ZERO));
    fleet.until(SOON, all_ended).await;
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_higher_priority_goes_first_and_equal_ones_in_the_order_of_their_requests(pool: PgPool) {
    let mut fleet = Fleet::new(pool, 2, 0, "").await; // One at a time.
    fleet.hypervisors.let_copies_take(None);
    fleet.start_conductor();
    let mut ids = Vec::new();
    for n in 0..6 {
        let server = fleet.guest(n, &host("h1")).await;
        ids.push(fleet.live_migrate(server, None).await);
        // One after the other, so that the first has the slot and the rest stand in line.
        let stands = [MigrationStatus::Running, MigrationStatus::Queued];
        fleet.until(SOON, |all| all.len() == n + 1 && all.iter().all(|m| stands.contains(&m.status))).await;
    }
    fleet.set_priority(ids[4], 5).await;
    fleet.set_priority(ids[2], -1).await;
    fleet.hypervisors.let_copies_take(Some(Duration::ZERO));
    let mut all = fleet.until(SOON, all_ended).await;
    assert_eq!(count(&all, MigrationStatus::Completed), 6);
    all.sort_by_key(|migration| migration.claimed_at);
    let order: Vec<MigrationId> = all.iter().map(|migration| migration.id).collect();
    assert_eq!(order, [0, 4, 1, 3, 5, 2].map(|n| ids[n]));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_link_is_shared_among_its_copies_as_they_come_and_go_and_after_a_conductors_death(pool: PgPool) {
    let mut fleet = Fleet::new(pool, 4, 100, "max_concurrent_live_migrations = 0").await;
    fleet.hypervisors.let_copies_take(None);
    fleet.start_conductor();
    let [a, b, c] = [fleet.guest(0, &host("h1")).await, fleet.guest(1, &host("h1")).await, fleet.guest(2, &host("h2")).await];
    let shares = async |fleet: &Fleet, what: &str, expected: [Option<u64>; 3]| {
        let agreed = async {
            loop {
                let told = {
                    let guests = fleet.hypervisors.lock();
                    [a, b, c].map(|server| guests[&server].bandwidth_mib)
                };
                let all = fleet.migrations().await;
                let kept = [a, b, c].map(|server| all.iter().rev().find(|m| m.server == server).and_then(|m| m.bandwidth_mib));
                if told == expected && kept == expected {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, agreed).await.unwrap_or_else(|_| panic!("{what}"));
    };
    let first = fleet.live_migrate(a, Some(host("h3"))).await;
    shares(&fleet, "alone it has the link", [Some(100), None, None]).await;
    let second = fleet.live_migrate(b, Some(host("h4"))).await;
    shares(&fleet, "two leave h1", [Some(50), Some(50), None]).await;
    let third = fleet.live_migrate(c, Some(host("h3"))).await;
    shares(&fleet, "two leave h1, two arrive at h3", [Some(50), Some(50), Some(50)]).await;
    fleet.kill_conductor();
    // What it left: a share that was written and never told, and one that an agent never heard of.
    let mut conn = fleet.store.connection().await.unwrap();
    bandwidth::set(&mut conn, &[(first, Some(1))]).await.unwrap();
    let row = migrations::get(&mut conn, third).await.unwrap().unwrap();
    let sample = Progress { memory_total: 1, bandwidth_mib: Some(7), ..Progress::default() };
    migrations::record_progress(&mut conn, third, row.attempt, &row.source, &sample, SOON).await.unwrap();
    drop(conn);
    fleet.hypervisors.lock().get_mut(&c).unwrap().bandwidth_mib = Some(7);
    fleet.start_conductor();
    shares(&fleet, "the next conductor mends them", [Some(50), Some(50), Some(50)]).await;
    assert!(fleet.abort(second).await);
    shares(&fleet, "one of h1's is over: h3's link is left to two", [Some(50), None, Some(50)]).await;
    fleet.hypervisors.let_copies_take(Some(Duration::ZERO));
    let all = fleet.until(SOON, all_ended).await;
    assert!(all.iter().all(|migration| migration.bandwidth_mib.is_none()));
}

/// Aborts at many moments, from the request on: some wait in the queue, some make ready, some copy.
#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_abort_at_any_moment_ends_within_seconds_and_leaves_the_guest_where_it_was(pool: PgPool) {
    const GUESTS: usize = 60;
    let mut fleet = Fleet::new(pool, 6, 0, "max_concurrent_live_migrations = 5").await;
    fleet.hypervisors.let_copies_take(None);
    let mut servers = Vec::new();
    for n in 0..GUESTS {
        servers.push(fleet.guest(n, &host(&format!("h{}", n % 3 + 1))).await);
    }
    fleet.start_conductor();
    fleet.start_conductor();
    let fleet = &fleet;
    let took = join_all(servers.iter().enumerate().map(|(n, server)| async move {
        let id = fleet.live_migrate(*server, None).await;
        tokio::time::sleep(Duration::from_millis((n * 37 % 600) as u64)).await; // The moment is what is being tried.
        let asked = tokio::time::Instant::now();
        assert!(fleet.abort(id).await);
        let ended = |all: &[Migration]| all.iter().any(|m| m.id == id && m.status.is_final());
        fleet.until(Duration::from_mins(1), ended).await;
        asked.elapsed()
    }));
    let mut took = took.await;
    took.sort();
    let (p50, p99) = (took[GUESTS / 2], took[GUESTS * 99 / 100]);
    println!("{GUESTS} aborts: p50 {p50:?}, p99 {p99:?}");
    assert!(p99 < Duration::from_secs(5), "p50 {p50:?}, p99 {p99:?}");
    let all = fleet.migrations().await;
    assert_eq!(count(&all, MigrationStatus::Cancelled), GUESTS);
    let on = |name: &str| fleet.hypervisors.guests_on(&HostName::new(name).unwrap());
    assert_eq!(["h1", "h2", "h3"].map(on), [20, 20, 20]);
}
