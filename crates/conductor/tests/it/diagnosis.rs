//! What `drover doctor` hears of hosts.

use drover_common::rpc::latest::{FleetDiagnosis, ToConductor};
use sqlx::PgPool;

use crate::world::World;

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_agent_is_asked_and_told_whom_to_try_and_one_that_is_gone_is_told_as_that(pool: PgPool) {
    let world = World::new(pool).await;
    let fleet: FleetDiagnosis = world.ask(ToConductor::Diagnose).await;
    let tried: Vec<(&str, Vec<&str>)> = fleet
        .hosts
        .iter()
        .map(|one| {
            let reach = &one.diagnosis.as_ref().unwrap().reach;
            (one.host.as_str(), reach.iter().map(|tried| tried.host.as_str()).collect())
        })
        .collect();
    assert_eq!(tried, [("h1", vec!["h2"]), ("h2", vec!["h1"])]);
    for one in &fleet.hosts {
        assert!(one.clock_ahead_ms.is_some_and(|ahead| (3_500_000..3_700_000).contains(&ahead)), "an hour: {one:?}");
    }
    world.switch_off(&world.h2);
    let fleet: FleetDiagnosis = world.ask(ToConductor::Diagnose).await;
    assert_eq!(fleet.hosts.len(), 2);
    assert!(fleet.hosts[0].diagnosis.is_some());
    assert!(fleet.hosts[1].diagnosis.is_none() && fleet.hosts[1].problem.is_some(), "{:?}", fleet.hosts[1]);
}
