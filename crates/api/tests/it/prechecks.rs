//! Below 2.34 the answer waits until the migration's row has left the prechecks, whoever moved it.

use std::time::{Duration, Instant};

use drover_common::bus::{Address, Bus};
use drover_common::fault::{Fault, FaultClass};
use drover_common::ids::{MigrationId, ServerId};
use drover_common::migration::Event;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::ToApi;
use drover_store::migrations::Migration;
use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Answer, Cloud, golden, host_name, server_id};

fn body() -> Value {
    json!({"os-migrateLive": {"host": null, "block_migration": false, "disk_over_commit": false}})
}

/// Asks on one of the mounts, at 2.1, and meanwhile does `then` with the migration that comes of it.
async fn ask_and(cloud: &Cloud, mount: &str, server: ServerId, then: impl AsyncFnOnce(Migration)) -> Answer {
    let path = format!("/{mount}/servers/{server}/action");
    let body = body();
    let answer = Box::pin(cloud.ask(Method::POST, "2.1", &path, Some(&body)));
    let meanwhile = async {
        loop {
            let mut conn = cloud.store.connection().await.unwrap();
            if let Some(migration) = drover_store::migrations::open_of_server(&mut conn, server).await.unwrap() {
                drop(conn);
                return Box::pin(then(migration)).await;
            }
            drop(conn);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let meanwhile = async {
        meanwhile.await;
        std::future::pending::<()>().await;
    };
    tokio::select! { answer = answer => answer, () = meanwhile => unreachable!() }
}

async fn wake(conductor: &Bus, migration: &Migration) {
    let to: Address = migration.reply_to.as_deref().unwrap().parse().unwrap();
    conductor.cast(&to, &Envelope::new(ToApi::MigrationMoved { migration: migration.id })).await.unwrap();
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_word_of_the_conductor_ends_the_wait_at_once(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let (conductor, _inbox) = cloud.conductor();
    let waited = Instant::now();
    let answer = Box::pin(ask_and(&cloud, "v2.1", server_id(1), async |migration| {
        cloud.advance(migration.id, Event::Claimed, |row| row.destination = Some(host_name("h2"))).await;
        wake(&conductor, &migration).await;
    }))
    .await;
    answer.assert_empty(202);
    assert!(waited.elapsed() < Duration::from_millis(800), "{:?}", waited.elapsed());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn without_a_word_the_row_ends_the_wait(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let answer = Box::pin(ask_and(&cloud, "v2.1", server_id(1), async |migration| {
        cloud.advance(migration.id, Event::NoSlot, |_| {}).await; // Queued: the prechecks have passed.
    }))
    .await;
    answer.assert_empty(202);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_word_that_comes_too_early_does_not_end_the_wait(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let (conductor, _inbox) = cloud.conductor();
    let answer = Box::pin(ask_and(&cloud, "v2.1", server_id(1), async |migration| {
        wake(&conductor, &migration).await;
        conductor
            .cast(
                &migration.reply_to.as_deref().unwrap().parse().unwrap(),
                &Envelope::new(ToApi::MigrationMoved { migration: MigrationId(999) }),
            )
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        cloud.advance(migration.id, Event::Refused, |row| row.fault = Some(Fault::precheck("no"))).await;
        wake(&conductor, &migration).await;
    }))
    .await;
    answer.assert_refusal("400 badRequest: Migration pre-check error: no");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn each_class_of_fault_has_its_status_on_both_mounts(pool: PgPool) {
    let cloud = Cloud::new(pool);
    cloud.host("h1", 1).await;
    let (conductor, _inbox) = cloud.conductor();
    let mut table = json!({});
    let mut n = 0;
    for &class in FaultClass::ALL {
        for mount in ["v2.1", "v2"] {
            n += 1;
            let server = cloud.server(n, "h1").await;
            let answer = Box::pin(ask_and(&cloud, mount, server, async |migration| {
                let fault = Fault { class, message: format!("what {class} says") };
                cloud.advance(migration.id, Event::Refused, |row| row.fault = Some(fault)).await;
                wake(&conductor, &migration).await;
            }))
            .await;
            table[class.as_str()][mount] = json!(answer.refusal().replace(&server.to_string(), "[server]"));
        }
    }
    golden("precheck_outcomes", &table);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_abort_in_the_prechecks_is_told_and_one_after_them_is_not_theirs(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.server(2, "h1").await;
    let early = Box::pin(ask_and(&cloud, "v2.1", server_id(1), async |migration| {
        cloud.advance(migration.id, Event::Aborted, |row| row.fault = Some(Fault::aborted("admin"))).await;
    }))
    .await;
    early.assert_refusal("409 conflictingRequest: Live migration aborted by admin.");
    let late = Box::pin(ask_and(&cloud, "v2.1", server_id(2), async |migration| {
        cloud.advance(migration.id, Event::Claimed, |row| row.destination = Some(host_name("h2"))).await;
        cloud.advance(migration.id, Event::RollBack, |_| {}).await;
        cloud.advance(migration.id, Event::RolledBackCancelled, |row| row.fault = Some(Fault::aborted("admin"))).await;
    }))
    .await;
    late.assert_empty(202);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_client_that_goes_away_ends_the_wait_and_not_the_migration(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let path = format!("/v2.1/servers/{}/action", server_id(1));
    let body = body();
    let answer = cloud.ask(Method::POST, "2.1", &path, Some(&body));
    assert!(tokio::time::timeout(Duration::from_millis(300), answer).await.is_err());
    assert!(cloud.open_migration(server_id(1)).await.abort_requested_by.is_none());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn when_the_api_is_stopped_the_caller_is_told_that_the_migration_goes_on(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let life = cloud.life.clone();
    let mut id = None;
    let answer = Box::pin(ask_and(&cloud, "v2.1", server_id(1), async |migration| {
        id = Some(migration.id);
        life.stop.cancel();
    }))
    .await;
    answer.assert_refusal(&format!("503 serviceUnavailable: The API is being stopped; migration {} goes on.", id.unwrap()));
}
