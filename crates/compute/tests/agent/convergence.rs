//! A copy that gets nowhere: what the agent decides, does and tells.

use drover_common::rpc::latest::{CallState, GrantKind, JobKind};
use drover_compute::driver::{Action, DomainEvent, DriverError};

use super::MIB;
use super::fake::Stage;

/// A copy whose passes all begin with the same 64 MiB left and last a second, up to this one.
async fn passes(stage: &Stage, count: i64) {
    for iteration in 1..=count {
        {
            let mut state = stage.driver.state();
            let progress = &mut state.sample.progress;
            progress.elapsed_ms = iteration * 1000;
            progress.iteration = iteration;
            progress.memory_remaining = 64 * MIB;
            progress.bytes_per_second = 64 * MIB;
        }
        stage.driver.tell(DomainEvent::Iteration(stage.of.server));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await; // Paused time: the poll below the events has looked, too.
    }
}

async fn copying(libvirt: &str) -> Stage {
    let stage = Stage::with_options(libvirt, |_, _, _| {});
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
    stage
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_gets_nowhere_is_taken_back_if_so_configured_and_everybody_is_told_why() {
    let mut stage = copying("live_migration_stall_action = \"abort\"").await;
    passes(&stage, 5).await;
    assert!(!stage.driver.state().actions.contains(&Action::AbortJob), "not yet");
    passes(&stage, 7).await;
    stage.until(|state| state.actions.contains(&Action::AbortJob)).await;
    stage.driver.set_job(None, 0);
    stage.driver.return_from_call(Err(DriverError::other("operation aborted: canceled by client")));
    let report = stage.report().await;
    let CallState::Ended { error: Some(_), taken_back: Some(why) } = report.facts.call else { panic!("{:?}", report.facts.call) };
    assert!(
        why.contains("no progress in 3 passes up to pass 6") && why.ends_with("live_migration_stall_action = \"abort\""),
        "{why}"
    );
    let told: Vec<_> = std::iter::from_fn(|| stage.decisions.try_recv().ok()).collect();
    let what: Vec<&str> = told.iter().map(|decision| decision.what.as_str()).collect();
    assert_eq!(what, ["policy", "downtime 50 ms", "abort"]);
    assert_eq!(told[2].why, why);
}

#[tokio::test(start_paused = true)]
async fn by_default_it_is_told_once_and_left_to_the_completion_timeout() {
    let mut stage = copying("").await;
    passes(&stage, 12).await;
    let told: Vec<_> = std::iter::from_fn(|| stage.decisions.try_recv().ok()).collect();
    let hopeless: Vec<_> = told.iter().filter(|decision| decision.what == "cannot finish").collect();
    assert_eq!(hopeless.len(), 1, "{told:?}");
    assert!(!stage.driver.state().actions.contains(&Action::AbortJob));
}

#[tokio::test(start_paused = true)]
async fn where_post_copy_is_permitted_a_stall_begins_it_after_leave() {
    let stage = copying("live_migration_permit_post_copy = true").await;
    passes(&stage, 7).await;
    stage.until(|state| state.actions.contains(&Action::StartPostCopy)).await;
    assert_eq!(stage.script.lock().unwrap().asked, [GrantKind::Start, GrantKind::PostCopy]);
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_cannot_take_post_copy_is_told_of_and_auto_converge_takes_its_place() {
    let both = "live_migration_permit_post_copy = true\nlive_migration_permit_auto_converge = true";
    let mut stage = Stage::with_options(both, |_, _, _| {});
    let mut order = stage.with_data();
    order.data.no_post_copy = Some("no guest can arrive by it on h2".to_owned());
    stage.cast(drover_common::rpc::latest::ToCompute::LiveMigration(order)).await;
    stage.until(|state| !state.calls.is_empty()).await;
    let flags = stage.driver.state().calls[0].flags;
    assert_eq!((flags & (1 << 15), flags & (1 << 13)), (0, 1 << 13));
    let policy = stage.decisions.recv().await.unwrap();
    assert!(policy.why.ends_with("auto-converge; not by post-copy: no guest can arrive by it on h2"), "{policy:?}");
}
