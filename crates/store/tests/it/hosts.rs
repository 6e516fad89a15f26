use std::time::Duration;

use drover_common::ids::Incarnation;
use drover_store::hosts::{self, NotThisHost};
use drover_store::services;
use sqlx::PgPool;
use uuid::Uuid;

use crate::fixture::{add_host, add_server, host, inventory};

const MINUTE: Duration = Duration::from_mins(1);

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_renamed_or_cloned_host_is_refused_and_nothing_changes(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let uuid = Uuid::new_v4();
    let service = services::seen(&mut conn, &host("h1"), services::COMPUTE).await.unwrap();
    let life = Incarnation::random();
    hosts::host_up(&mut conn, &host("h1"), service, life, &inventory(uuid)).await.unwrap().unwrap();
    let renamed = hosts::host_up(&mut conn, &host("h9"), service, Incarnation::random(), &inventory(uuid)).await.unwrap();
    assert!(matches!(renamed, Err(NotThisHost::Renamed { .. })), "{renamed:?}");
    let other = hosts::host_up(&mut conn, &host("h1"), service, Incarnation::random(), &inventory(Uuid::new_v4())).await.unwrap();
    assert!(matches!(other, Err(NotThisHost::NameTaken { .. })), "{other:?}");
    assert_eq!(hosts::present_life(&mut conn, &host("h1")).await.unwrap().unwrap().0, life);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_heartbeat_of_an_earlier_life_does_not_count(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let life = add_host(&mut conn, "h1").await;
    sqlx::raw_sql("UPDATE services SET last_seen_up = now() - interval '1 hour'").execute(&mut *conn).await.unwrap();
    let up = async |conn: &mut sqlx::PgConnection| hosts::snapshot(conn, None, None, MINUTE).await.unwrap()[0].up;
    services::heartbeats(&mut conn, &["h1".to_owned()], &[Uuid::new_v4()]).await.unwrap();
    assert!(!up(&mut conn).await);
    services::heartbeats(&mut conn, &["h1".to_owned()], &[life.0]).await.unwrap();
    assert!(up(&mut conn).await);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_host_that_is_forced_down_is_down_however_it_beats(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    add_host(&mut conn, "h1").await;
    assert!(services::set(&mut conn, &host("h1"), None, None, Some(true)).await.unwrap());
    let state = hosts::snapshot(&mut conn, None, None, MINUTE).await.unwrap().remove(0);
    assert!(state.forced_down && !state.up);
    assert!(services::is_forced_down(&mut conn, &host("h1")).await.unwrap());
    assert!(!services::set(&mut conn, &host("nope"), Some(true), None, None).await.unwrap());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn what_is_used_is_the_servers_there_without_the_one_that_is_placed(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    add_host(&mut conn, "h1").await;
    let placed = add_server(&mut conn, "h1").await;
    add_server(&mut conn, "h1").await;
    let all = hosts::snapshot(&mut conn, None, None, MINUTE).await.unwrap().remove(0);
    assert_eq!((all.memory_mb_used, all.vcpus_used), (2048, 2));
    let only = ["h1".to_owned()];
    let without = hosts::snapshot(&mut conn, Some(&only), Some(placed), MINUTE).await.unwrap().remove(0);
    assert_eq!((without.memory_mb_used, without.vcpus_used), (1024, 1));
}
