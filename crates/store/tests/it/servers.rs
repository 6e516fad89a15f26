use drover_common::ids::{Incarnation, ServerId};
use drover_common::server::{PowerState, TaskState, VmState};
use drover_store::servers::{self, Observer, Settled};
use futures::future::join_all;
use sqlx::PgPool;

use crate::fixture::{accept, add_server, domain, host};

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn of_twenty_racing_requests_exactly_one_takes_the_server(pool: PgPool) {
    let server = add_server(&mut pool.acquire().await.unwrap(), "h1").await;
    let race = (0..20).map(|_| async {
        let mut conn = pool.acquire().await.unwrap();
        servers::claim_task_state(&mut conn, server, TaskState::Migrating).await.unwrap().is_some()
    });
    assert_eq!(join_all(race).await.into_iter().filter(|won| *won).count(), 1);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_second_open_migration_is_impossible_even_if_task_state_was_reset(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let server = add_server(&mut conn, "h1").await;
    accept(&mut conn, server, "h1").await.unwrap();
    let refused = accept(&mut conn, server, "h1").await.unwrap_err();
    assert_eq!(refused.broken_constraint(), Some(drover_store::migrations::ONE_OPEN_PER_SERVER));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn only_active_and_paused_servers_without_a_task_can_be_taken(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    for (power_state, takes) in [(PowerState::Running, true), (PowerState::Paused, true), (PowerState::Shutdown, false)] {
        let server = add_server(&mut conn, "h1").await;
        servers::settle(&mut conn, server, &Settled { host: &host("h1"), node: "node", power_state, observed: None })
            .await
            .unwrap();
        assert_eq!(
            servers::claim_task_state(&mut conn, server, TaskState::Migrating).await.unwrap().is_some(),
            takes,
            "{power_state}"
        );
        assert!(
            servers::claim_task_state(&mut conn, server, TaskState::Migrating).await.unwrap().is_none(),
            "taken twice: {power_state}"
        );
    }
    assert!(
        servers::claim_task_state(&mut conn, ServerId::random(), TaskState::Migrating).await.unwrap().is_none(),
        "an unknown one"
    );
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_books_follow_the_guest_to_its_new_host(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let id = add_server(&mut conn, "h1").await;
    servers::claim_task_state(&mut conn, id, TaskState::Migrating).await.unwrap();
    servers::settle(&mut conn, id, &Settled { host: &host("h2"), node: "n2", power_state: PowerState::Paused, observed: None })
        .await
        .unwrap();
    let server = servers::get(&mut conn, id).await.unwrap().unwrap();
    assert_eq!((server.host.as_str(), server.node.as_str()), ("h2", "n2"));
    assert_eq!((server.vm_state, server.task_state, server.power_state), (VmState::Paused, None, PowerState::Paused));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_server_that_was_gone_keeps_its_row_when_it_comes_back(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let id = add_server(&mut conn, "h1").await;
    let before = servers::get(&mut conn, id).await.unwrap().unwrap();
    let (h1, h2) = (host("h1"), host("h2"));
    let life = Incarnation::random();
    servers::gone(&mut conn, Observer { host: &h1, node: "n", incarnation: life, sequence: 2 }, id).await.unwrap();
    assert!(servers::get(&mut conn, id).await.unwrap().unwrap().deleted_at.is_some());
    let there = Observer { host: &h2, node: "n2", incarnation: life, sequence: 1 };
    servers::adopt(&mut conn, there, &domain(id), VmState::Active, ("project", "user")).await.unwrap();
    let after = servers::get(&mut conn, id).await.unwrap().unwrap();
    assert_eq!((after.id, after.created_at), (before.id, before.created_at));
    assert_eq!((after.host, after.deleted_at), (h2, None));
}
