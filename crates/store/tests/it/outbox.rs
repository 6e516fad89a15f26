use std::time::Duration;

use drover_common::bus::Address;
use drover_common::ids::MigrationId;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::ToConductor;
use drover_store::outbox;
use sqlx::PgPool;

fn wake() -> Envelope<ToConductor> {
    Envelope::new(ToConductor::Wake { migration: MigrationId(1) })
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_promise_is_kept_with_its_transaction_only(pool: PgPool) {
    let mut tx = pool.begin().await.unwrap();
    outbox::append(&mut tx, &Address::Conductor, &wake()).await.unwrap();
    tx.rollback().await.unwrap();
    let mut conn = pool.acquire().await.unwrap();
    assert!(outbox::left_over(&mut conn, Duration::ZERO, 10).await.unwrap().is_empty());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn two_sweeps_at_once_do_not_publish_the_same_promise(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let envelope = wake();
    let id = outbox::append(&mut conn, &Address::Conductor, &envelope).await.unwrap();
    let (mut one, mut two) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    let first = outbox::left_over(&mut one, Duration::ZERO, 10).await.unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(serde_json::from_value::<Envelope<ToConductor>>(first[0].envelope.clone()).unwrap(), envelope);
    assert!(outbox::left_over(&mut two, Duration::ZERO, 10).await.unwrap().is_empty());
    outbox::mark_published(&mut one, id).await.unwrap();
    one.commit().await.unwrap();
    assert!(outbox::left_over(&mut two, Duration::ZERO, 10).await.unwrap().is_empty());
}
