//! How long the API takes. The numbers are printed; what is asserted is far above them, so that a busy machine does not fail it.
//! `make bench` measures properly.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use crate::fixture::{Cloud, server_id};

const REQUESTS: u128 = 200;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn post_to_202_takes_a_few_milliseconds(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let (_bus, mut inbox) = cloud.conductor();
    tokio::spawn(async move { while inbox.recv().await.is_some() {} });
    for n in 1..=REQUESTS {
        cloud.server(n, "h1").await;
    }
    let mut times = Vec::new();
    for n in 1..=REQUESTS {
        let started = Instant::now();
        cloud.live_migrate(server_id(n), Some("h2")).await.assert_empty(202);
        times.push(started.elapsed());
    }
    let median = median(times);
    println!("POST to 202: median {median:?} of {REQUESTS}");
    assert!(median < Duration::from_millis(50), "{median:?}");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_listing_takes_a_few_milliseconds(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    for n in 1..=100 {
        cloud.server(n, "h1").await;
    }
    let mut times = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        assert_eq!(cloud.get("2.84", "/v2.1/servers/detail?all_tenants=1").await.status, 200);
        times.push(started.elapsed());
    }
    let median = median(times);
    println!("GET /servers/detail with 100 servers: median {median:?}");
    assert!(median < Duration::from_millis(100), "{median:?}");
}
