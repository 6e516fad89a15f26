use std::time::Duration;

use drover_common::fault::Fault;
use drover_common::ids::{Incarnation, PowerActionId, RequestId, ServerId};
use drover_common::power::PowerAction;
use drover_common::server::{PowerState, TaskState, VmState};
use drover_store::power::{self, NewPower};
use drover_store::servers::{self, Settled};
use drover_store::{StoreError, actions};
use futures::future::join_all;
use sqlx::{PgConnection, PgPool};

use crate::fixture::{add_server, host, migration};

/// Does what the API does on acceptance.
async fn accept(conn: &mut PgConnection, server: ServerId, action: PowerAction) -> Result<PowerActionId, StoreError> {
    let request_id = &RequestId::random();
    let instance_action = actions::start(conn, server, action.rule().name, request_id, "user", "project").await?;
    let new = NewPower { server, action, instance_action, user_id: "user", project_id: "project", request_id };
    power::insert(conn, new).await
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn of_racing_actions_exactly_one_gets_the_server(pool: PgPool) {
    let id = add_server(&mut pool.acquire().await.unwrap(), "h1").await;
    let wanted = [PowerAction::Pause, PowerAction::Stop, PowerAction::RebootSoft, PowerAction::RebootHard];
    let race = wanted.into_iter().cycle().take(20).map(|action| {
        let pool = pool.clone();
        async move { servers::claim_for(&mut pool.acquire().await.unwrap(), id, action).await.unwrap() }
    });
    let won: Vec<_> = join_all(race).await.into_iter().flatten().collect();
    assert_eq!(won.len(), 1);
    let claimed = servers::claim_task_state(&mut pool.acquire().await.unwrap(), id, TaskState::Migrating).await.unwrap();
    assert!(claimed.is_none(), "nor does a migration");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_second_open_action_is_impossible_but_for_a_delete(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let id = add_server(&mut conn, "h1").await;
    let stop = accept(&mut conn, id, PowerAction::Stop).await.unwrap();
    let second = accept(&mut conn, id, PowerAction::Pause).await.unwrap_err();
    assert_eq!(second.broken_constraint(), Some("power_actions_one_open_per_server"));
    let delete = accept(&mut conn, id, PowerAction::Delete).await.unwrap();
    let third = accept(&mut conn, id, PowerAction::Delete).await.unwrap_err();
    assert_eq!(third.broken_constraint(), Some("power_actions_one_open_delete_per_server"));
    let open = power::open_of_server(&mut conn, id).await.unwrap();
    assert_eq!(open.iter().map(|power| power.id).collect::<Vec<_>>(), [stop, delete]);
    assert!(power::close(&mut conn, stop, Some(&Fault::power_action(PowerAction::Stop, "no"))).await.unwrap());
    assert!(!power::close(&mut conn, stop, None).await.unwrap(), "it is over");
    assert!(power::get(&mut conn, stop).await.unwrap().unwrap().is_over);
    accept(&mut conn, id, PowerAction::Start).await.unwrap();
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn one_drive_at_a_time_and_a_dead_ones_row_is_found(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let server = add_server(&mut conn, "h1").await;
    let id = accept(&mut conn, server, PowerAction::Stop).await.unwrap();
    let (dead, next) = (Incarnation::random(), Incarnation::random());
    assert_eq!(power::due(&mut conn, 10).await.unwrap(), [id], "should the message be lost");
    assert!(power::take(&mut conn, id, dead).await.unwrap().is_some());
    assert!(power::take(&mut conn, id, next).await.unwrap().is_none());
    assert!(power::due(&mut conn, 10).await.unwrap().is_empty());
    sqlx::raw_sql("UPDATE power_actions SET deadline = now() - interval '1 second'").execute(&mut *conn).await.unwrap();
    assert_eq!(power::due(&mut conn, 10).await.unwrap(), [id]);
    assert!(power::take(&mut conn, id, next).await.unwrap().is_some());
    assert!(power::renew(&mut conn, id, dead).await.unwrap().is_none());
    power::release(&mut conn, id, next, Duration::from_mins(1), "somebody").await.unwrap();
    assert!(power::due(&mut conn, 10).await.unwrap().is_empty());
    assert!(power::take(&mut conn, id, dead).await.unwrap().is_some(), "an event comes before the time");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn silence_is_counted_from_its_beginning_until_an_answer(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let server = add_server(&mut conn, "h1").await;
    let id = accept(&mut conn, server, PowerAction::Stop).await.unwrap();
    power::note_silence(&mut conn, id).await.unwrap();
    sqlx::raw_sql("UPDATE power_actions SET silent_since = now() - interval '90 seconds'").execute(&mut *conn).await.unwrap();
    assert!(power::note_silence(&mut conn, id).await.unwrap().unwrap() >= Duration::from_secs(90));
    power::note_answer(&mut conn, id).await.unwrap();
    assert!(power::note_silence(&mut conn, id).await.unwrap().unwrap() < Duration::from_mins(1));
    power::close(&mut conn, id, None).await.unwrap();
    assert_eq!(power::note_silence(&mut conn, id).await.unwrap(), None);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_end_of_a_migration_or_of_another_action_does_not_take_a_delete_back(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let row = migration(&mut conn).await;
    let deleting = servers::claim_for(&mut conn, row.server, PowerAction::Delete).await.unwrap().unwrap();
    assert_eq!(deleting.task_state, Some(TaskState::Deleting));
    let h2 = host("h2");
    let settled = Settled { host: &h2, node: "n2", power_state: PowerState::Running, observed: None };
    servers::settle(&mut conn, row.server, &settled).await.unwrap();
    servers::release_task_state(&mut conn, row.server).await.unwrap();
    let running = (PowerState::Running, VmState::Active);
    servers::settle_after(&mut conn, row.server, PowerAction::Stop, running, None).await.unwrap();
    let server = servers::get(&mut conn, row.server).await.unwrap().unwrap();
    assert_eq!((server.host, server.task_state), (h2, Some(TaskState::Deleting)));
    servers::settle_after(&mut conn, row.server, PowerAction::Delete, running, None).await.unwrap();
    assert_eq!(servers::get(&mut conn, row.server).await.unwrap().unwrap().task_state, None);
}
