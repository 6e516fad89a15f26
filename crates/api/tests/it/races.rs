//! Many at once.

use futures::future::join_all;
use sqlx::PgPool;

use crate::fixture::{Cloud, server_id};

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn of_twenty_requests_for_one_server_exactly_one_is_accepted(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let answers = join_all((0..20).map(|_| cloud.live_migrate(server_id(1), Some("h2")))).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 202);
    assert_eq!((accepted.len(), refused.len()), (1, 19));
    let open = cloud.open_migration(server_id(1)).await;
    for answer in refused {
        answer.assert_refusal(&format!(
            "409 conflictingRequest: Cannot 'os-migrateLive' instance {} while it is in task_state migrating: migration {} is accepted",
            server_id(1),
            open.id
        ));
    }
    assert_eq!(cloud.migrations().await.len(), 1);
    assert_eq!(open.request_id.as_str(), accepted[0].header("x-openstack-request-id"));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn requests_for_different_servers_do_not_disturb_one_another(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    for n in 2..=20 {
        cloud.server(n, "h1").await;
    }
    let answers = join_all((1..=20).map(|n| cloud.live_migrate(server_id(n), None))).await;
    assert!(answers.iter().all(|answer| answer.status == 202));
    assert_eq!(cloud.migrations().await.len(), 20);
}
