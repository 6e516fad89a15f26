//! What Prometheus is told.

use std::time::Duration;

use drover_common::metrics::{self, CONDUCTOR};
use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::GuestState;
use drover_store::pause;
use sqlx::PgPool;

use crate::world::World;

/// The value of this line. Other tests of this process count, too: values grow, they are not exact.
fn value(text: &str, line: &str) -> f64 {
    let found = text.lines().find_map(|told| told.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_conductor_tells_all_that_it_declares(pool: PgPool) {
    let world = World::new(pool).await;
    world.h2.set_guest(Some(GuestState::Running), None);
    let mut conn = world.store.connection().await.unwrap();
    pause::begin(&mut conn, "admin", "new switches").await.unwrap();
    metrics::BUILD_INFO.set(["0"], 1.0); // As the start of the process does.
    let id = world.live_migrate().await;
    world.until(id, |row| row.status == MigrationStatus::Queued).await;
    assert!(pause::end(&mut conn).await.unwrap());
    drop(conn);
    let row = world.until(id, |row| row.status.is_final()).await;
    assert_eq!(row.status, MigrationStatus::Completed);
    let told = |text: &str| metrics::of(CONDUCTOR).all(|declared| text.contains(&format!("\n{}", declared.metric().exposed())));
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !told(&metrics::expose(CONDUCTOR)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let text = waited.await.map_or_else(
        |_| {
            let text = metrics::expose(CONDUCTOR);
            let missing: Vec<String> = metrics::of(CONDUCTOR)
                .map(|declared| declared.metric().exposed())
                .filter(|name| !text.contains(&format!("\n{name}")))
                .collect();
            panic!("declared and not told: {missing:?}")
        },
        |()| metrics::expose(CONDUCTOR),
    );
    assert!(value(&text, "drover_migrations_ended_total{status=\"completed\",reason=\"none\"}") >= 1.0);
    assert!(value(&text, "drover_queue_wait_seconds_count{reason=\"paused\"}") >= 1.0);
    for phase in ["waiting", "preparing", "copying", "finishing"] {
        assert!(value(&text, &format!("drover_migration_phase_duration_seconds_count{{phase=\"{phase}\"}}")) >= 1.0);
    }
    assert!(value(&text, "drover_message_duration_seconds_count{kind=\"migrate_server\"}") >= 1.0);
    for private in [world.server().await.uuid.to_string(), "h1".to_owned(), "new switches".to_owned()] {
        assert!(!text.contains(&private), "{private}");
    }
}
