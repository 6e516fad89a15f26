//! `pause`, `unpause`, `os-start`, `os-stop`, `reboot`, and DELETE of a server.

use drover_common::migration::Event;
use drover_common::power::PowerAction;
use drover_common::rpc::latest::ToConductor;
use drover_common::server::{TaskState, VmState};
use drover_store::{actions, migrations, power, servers};
use futures::future::join_all;
use http::Method;
use serde_json::{Map, Value, json};
use sqlx::PgPool;

use crate::fixture::{Answer, Cloud, golden, host_name, server_id, to_conductor};

/// The bodies, by what they ask for; none is DELETE.
fn bodies() -> [(PowerAction, Option<Value>); 7] {
    [
        (PowerAction::Pause, Some(json!({"pause": null}))),
        (PowerAction::Unpause, Some(json!({"unpause": {}}))),
        (PowerAction::Start, Some(json!({"os-start": null}))),
        (PowerAction::Stop, Some(json!({"os-stop": {}}))),
        (PowerAction::RebootSoft, Some(json!({"reboot": {"type": "Soft"}}))),
        (PowerAction::RebootHard, Some(json!({"reboot": {"type": "HARD"}}))),
        (PowerAction::Delete, None),
    ]
}

async fn ask(cloud: &Cloud, token: &str, n: u128, body: Option<&Value>) -> Answer {
    let path = format!("/v2.1/servers/{}", server_id(n));
    match body {
        Some(_) => cloud.ask_as(token, Method::POST, "2.1", &format!("{path}/action"), body).await,
        None => cloud.ask_as(token, Method::DELETE, "2.1", &path, None).await,
    }
}

/// A cloud whose server 1 is in this state.
async fn with_server(pool: PgPool, vm_state: VmState) -> Cloud {
    let cloud = Cloud::new(pool);
    cloud.host("h1", 1).await;
    cloud.host("h2", 2).await;
    cloud.server_of(1, "h1", "p1", vm_state).await;
    cloud
}

/// Puts the server back as it was, as the end of the action does.
async fn reset(cloud: &Cloud, vm_state: VmState) {
    let mut conn = cloud.store.connection().await.unwrap();
    for open in power::open_of_server(&mut conn, server_id(1)).await.unwrap() {
        power::close(&mut conn, open.id, None).await.unwrap();
    }
    servers::reset_state(&mut conn, server_id(1), vm_state).await.unwrap();
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn each_action_is_accepted_in_one_transaction_with_its_task_state_action_and_message(pool: PgPool) {
    for (action, body) in bodies() {
        let cloud = with_server(pool.clone(), VmState::Active).await;
        let from = action.rule().from[0];
        reset(&cloud, from).await;
        let (_bus, mut conductor) = cloud.conductor();
        let answer = ask(&cloud, "alice:p1", 1, body.as_ref()).await;
        answer.assert_empty(if action == PowerAction::Delete { 204 } else { 202 });
        let mut conn = cloud.store.connection().await.unwrap();
        let server = servers::get(&mut conn, server_id(1)).await.unwrap().unwrap();
        assert_eq!((server.task_state, server.vm_state), (Some(action.rule().task_state), from), "{action}");
        let open = power::open_of_server(&mut conn, server_id(1)).await.unwrap();
        assert_eq!((open.len(), open[0].action, open[0].user_id.as_str()), (1, action, "alice"));
        assert_eq!(open[0].request_id.as_str(), answer.header("x-openstack-request-id"));
        let recorded = actions::get(&mut conn, server_id(1), open[0].request_id.as_str()).await.unwrap().unwrap();
        assert_eq!((recorded.id, recorded.action.as_str()), (open[0].instance_action, action.rule().name));
        drop(conn);
        let told = to_conductor(&conductor.recv().await.unwrap());
        assert_eq!(told, ToConductor::WakePower { power_action: open[0].id });
        reset(&cloud, VmState::Active).await;
    }
}

/// For each action and each state, of the server and of what is being done to it: what is answered.
#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn what_the_state_does_not_allow_is_refused_in_novas_words(pool: PgPool) {
    let cloud = with_server(pool, VmState::Active).await;
    let mut shown = Map::new();
    for (action, body) in bodies() {
        let mut answers = Map::new();
        for vm_state in [VmState::Active, VmState::Paused, VmState::Stopped, VmState::Error] {
            for busy in [false, true] {
                reset(&cloud, vm_state).await;
                if busy {
                    let mut conn = cloud.store.connection().await.unwrap();
                    sqlx::raw_sql("UPDATE servers SET task_state = 'powering-off'").execute(&mut *conn).await.unwrap();
                }
                let answer = ask(&cloud, "admin", 1, body.as_ref()).await;
                let said = if answer.status.is_success() { answer.status.as_u16().to_string() } else { answer.refusal() };
                let key = if busy { format!("{vm_state}, powering-off") } else { vm_state.to_string() };
                answers.insert(key, Value::from(said));
            }
        }
        shown.insert(action.to_string(), Value::from(answers));
    }
    golden("power_states", &Value::from(shown));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_migrating_server_is_left_alone_but_for_a_delete_which_ends_the_migration_first(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.live_migrate(server_id(1), Some("h2")).await.assert_empty(202);
    let migration = cloud.open_migration(server_id(1)).await;
    for (action, body) in bodies() {
        let answer = ask(&cloud, "alice:p1", 1, body.as_ref()).await;
        let (name, id) = (action.rule().name, server_id(1));
        match action {
            PowerAction::Delete => answer.assert_empty(204),
            PowerAction::Unpause | PowerAction::Start => answer.assert_refusal(&format!(
                "409 conflictingRequest: Cannot '{name}' instance {id} while it is in vm_state active: migration {} is accepted",
                migration.id
            )),
            _ => answer.assert_refusal(&format!(
                "409 conflictingRequest: Cannot '{name}' instance {id} while it is in task_state migrating: migration {} is accepted",
                migration.id
            )),
        }
    }
    let after = cloud.open_migration(server_id(1)).await;
    assert_eq!(after.abort_requested_by.as_deref(), Some("alice"));
    // The migration ends; the delete is still wanted.
    cloud.advance(migration.id, Event::Aborted, |_| ()).await;
    let mut conn = cloud.store.connection().await.unwrap();
    servers::release_task_state(&mut conn, server_id(1)).await.unwrap();
    let server = servers::get(&mut conn, server_id(1)).await.unwrap().unwrap();
    assert_eq!(server.task_state, Some(TaskState::Deleting));
    drop(conn);
    // Once more changes nothing, and nothing else is begun.
    let before = cloud.record().await;
    ask(&cloud, "alice:p1", 1, None).await.assert_empty(204);
    cloud.live_migrate(server_id(1), None).await.assert_refusal(&format!(
        "409 conflictingRequest: Cannot 'os-migrateLive' instance {} while it is in task_state deleting",
        server_id(1)
    ));
    assert_eq!(strip_updated(&cloud.record().await), strip_updated(&before));
}

fn strip_updated(record: &str) -> String {
    record.lines().filter(|line| !line.contains("updated_at")).collect::<Vec<_>>().join("\n")
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn what_os_reset_state_freed_is_not_free_while_something_is_still_under_way(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let busy = |name: &str, task_state: &str| {
        format!("409 conflictingRequest: Cannot '{name}' instance {} while it is in task_state {task_state}", server_id(1))
    };
    ask(&cloud, "admin", 1, Some(&json!({"os-stop": null}))).await.assert_empty(202);
    ask(&cloud, "admin", 1, Some(&json!({"os-resetState": {"state": "active"}}))).await.assert_empty(202);
    cloud.live_migrate(server_id(1), None).await.assert_refusal(&busy("os-migrateLive", "powering-off"));
    ask(&cloud, "admin", 1, Some(&json!({"pause": null}))).await.assert_refusal(&busy("pause", "powering-off"));
    reset(&cloud, VmState::Active).await;
    cloud.live_migrate(server_id(1), None).await.assert_empty(202);
    ask(&cloud, "admin", 1, Some(&json!({"os-resetState": {"state": "active"}}))).await.assert_empty(202);
    let migration = cloud.open_migration(server_id(1)).await;
    let refused = ask(&cloud, "admin", 1, Some(&json!({"os-stop": null}))).await;
    refused.assert_refusal(&format!("{}: migration {} is accepted", busy("stop", "migrating"), migration.id));
    let mut conn = cloud.store.connection().await.unwrap();
    assert_eq!(servers::get(&mut conn, server_id(1)).await.unwrap().unwrap().task_state, None, "nothing of the claim is kept");
    assert!(migrations::get(&mut conn, migration.id).await.unwrap().unwrap().abort_requested_by.is_none());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn members_of_the_project_may_and_others_may_not(pool: PgPool) {
    let cloud = with_server(pool, VmState::Active).await;
    for (action, body) in bodies() {
        let other = ask(&cloud, "bob:p2", 1, body.as_ref()).await;
        other.assert_refusal(&format!("404 itemNotFound: Instance {} could not be found.", server_id(1)));
        reset(&cloud, action.rule().from[0]).await;
        assert!(ask(&cloud, "bob:p1", 1, body.as_ref()).await.status.is_success(), "{action}: any member");
        reset(&cloud, VmState::Active).await;
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_locked_server_is_for_admins_only(pool: PgPool) {
    let cloud = with_server(pool, VmState::Active).await;
    ask(&cloud, "alice:p1", 1, Some(&json!({"lock": null}))).await.assert_empty(202);
    for (action, body) in bodies() {
        reset(&cloud, action.rule().from[0]).await;
        let locked = ask(&cloud, "alice:p1", 1, body.as_ref()).await;
        locked.assert_refusal(&format!("409 conflictingRequest: Instance {} is locked", server_id(1)));
        assert!(ask(&cloud, "admin", 1, body.as_ref()).await.status.is_success(), "{action}");
        reset(&cloud, VmState::Active).await;
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_reboot_says_which(pool: PgPool) {
    let cloud = with_server(pool, VmState::Active).await;
    for (body, expected) in [
        (json!({"reboot": null}), "Invalid input for field/attribute reboot. Value: None. None is not of type 'object'"),
        (json!({"reboot": {}}), "Invalid input for field/attribute reboot. Value: {}. 'type' is a required property"),
        (
            json!({"reboot": {"type": "warm"}}),
            "Invalid input for field/attribute type. Value: warm. 'warm' is not one of ['HARD', 'Hard', 'hard', 'SOFT', 'Soft', 'soft']",
        ),
    ] {
        ask(&cloud, "admin", 1, Some(&body)).await.assert_refusal(&format!("400 badRequest: {expected}"));
    }
    for (kind, status) in [("SOFT", "REBOOT"), ("hard", "HARD_REBOOT")] {
        ask(&cloud, "admin", 1, Some(&json!({"reboot": {"type": kind}}))).await.assert_empty(202);
        let shown = cloud.get("2.1", &format!("/v2.1/servers/{}", server_id(1))).await.json();
        assert_eq!(shown["server"]["status"], status);
        for (wanted, found) in [(status, 1), ("ACTIVE", 1), ("MIGRATING", 0)] {
            let listed = cloud.get("2.1", &format!("/v2.1/servers?all_tenants=1&status={wanted}")).await.json();
            assert_eq!(listed["servers"].as_array().unwrap().len(), found, "{status}: {wanted}");
        }
        reset(&cloud, VmState::Active).await;
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_server_that_is_gone_is_not_found(pool: PgPool) {
    let cloud = with_server(pool, VmState::Active).await;
    let host = host_name("h1");
    let life = drover_common::ids::Incarnation::random();
    let observer = servers::Observer { host: &host, node: "h1", incarnation: life, sequence: 9 };
    servers::gone(&mut cloud.store.connection().await.unwrap(), observer, server_id(1)).await.unwrap();
    for (_, body) in bodies() {
        for n in [1, 5] {
            let expected = format!("404 itemNotFound: Instance {} could not be found.", server_id(n));
            ask(&cloud, "admin", n, body.as_ref()).await.assert_refusal(&expected);
        }
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn of_twenty_mixed_actions_at_once_exactly_one_is_accepted(pool: PgPool) {
    let cloud = with_server(pool, VmState::Active).await;
    let wanted = [
        json!({"pause": null}),
        json!({"os-stop": null}),
        json!({"reboot": {"type": "SOFT"}}),
        json!({"reboot": {"type": "HARD"}}),
        json!({"os-migrateLive": {"host": "h2", "block_migration": "auto"}}),
    ];
    let path = format!("/v2.1/servers/{}/action", server_id(1));
    let requests = wanted.iter().cycle().take(20).map(|body| cloud.ask(Method::POST, "2.68", &path, Some(body)));
    let answers = join_all(requests).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 202);
    assert_eq!((accepted.len(), refused.len()), (1, 19));
    for answer in refused {
        let text = answer.refusal();
        assert!(text.starts_with("409 conflictingRequest: Cannot '") && text.contains(" while it is in task_state "), "{text}");
    }
}
