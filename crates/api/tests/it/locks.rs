//! `lock`, `unlock` and `os-resetState`.

use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Answer, Cloud, server_id};

async fn act(cloud: &Cloud, token: &str, version: &str, body: Value) -> Answer {
    cloud.ask_as(token, Method::POST, version, &format!("/v2.1/servers/{}/action", server_id(1)), Some(&body)).await
}

async fn shown(cloud: &Cloud) -> Value {
    let server = cloud.get("2.73", &format!("/v2.1/servers/{}", server_id(1))).await.json();
    json!([server["server"]["locked"], server["server"]["locked_reason"]])
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_lock_keeps_everybody_but_admins_out_and_has_a_reason_since_2_73(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    assert_eq!(shown(&cloud).await, json!([false, null]));
    for (version, body) in
        [("2.1", json!({"lock": null})), ("2.72", json!({"lock": {"anything": 1}})), ("2.73", json!({"lock": null}))]
    {
        act(&cloud, "alice:p1", version, body).await.assert_empty(202);
        assert_eq!(shown(&cloud).await, json!([true, null]), "{version}");
        act(&cloud, "alice:p1", version, json!({"unlock": {}})).await.assert_empty(202);
        assert_eq!(shown(&cloud).await, json!([false, null]), "{version}");
    }
    act(&cloud, "alice:p1", "2.73", json!({"lock": {"locked_reason": "mine"}})).await.assert_empty(202);
    assert_eq!(shown(&cloud).await, json!([true, "mine"]));
    let named = |query: &'static str| {
        let cloud = &cloud;
        async move {
            cloud.get("2.73", &format!("/v2.1/servers?all_tenants=1&{query}")).await.json()["servers"].as_array().unwrap().len()
        }
    };
    assert_eq!((named("locked=True").await, named("locked=False").await), (1, 0));
    assert_eq!((named("locked_by=owner").await, named("locked_by=admin").await, named("locked_by=x").await), (1, 0, 0));
    for (body, expected) in [
        (
            json!({"lock": {"locked_reason": ""}}),
            "Invalid input for field/attribute locked_reason. Value: . '' should be non-empty",
        ),
        (
            json!({"lock": {"locked_reason": 5}}),
            "Invalid input for field/attribute locked_reason. Value: 5. 5 is not of type 'string'",
        ),
        (
            json!({"lock": {"reason": "x"}}),
            "Invalid input for field/attribute lock. Value: {'reason': 'x'}. Additional properties are not allowed ('reason' was unexpected)",
        ),
        (json!({"lock": "x"}), "Invalid input for field/attribute lock. Value: x. 'x' is not of type 'object', 'null'"),
    ] {
        act(&cloud, "admin", "2.73", body).await.assert_refusal(&format!("400 badRequest: {expected}"));
    }
    // Admins are let through.
    cloud.live_migrate(server_id(1), None).await.assert_empty(202);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_owner_cannot_undo_an_admins_lock(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    act(&cloud, "alice:p1", "2.73", json!({"lock": {"locked_reason": "owner's"}})).await.assert_empty(202);
    act(&cloud, "admin", "2.73", json!({"lock": {"locked_reason": "admin's"}})).await.assert_empty(202);
    assert_eq!(shown(&cloud).await, json!([true, "admin's"]));
    act(&cloud, "alice:p1", "2.73", json!({"lock": {"locked_reason": "mine again"}})).await.assert_empty(202);
    assert_eq!(shown(&cloud).await, json!([true, "admin's"]), "an owner's lock does not replace an admin's");
    let refused = act(&cloud, "alice:p1", "2.1", json!({"unlock": null})).await;
    refused.assert_refusal(
        "403 forbidden: Policy doesn't allow os_compute_api:os-lock-server:unlock:unlock_override to be performed.",
    );
    act(&cloud, "admin", "2.1", json!({"unlock": null})).await.assert_empty(202);
    assert_eq!(shown(&cloud).await, json!([false, null]));
    let path = format!("/v2.1/servers/{}/os-instance-actions", server_id(1));
    let actions = cloud.get("2.1", &path).await.json();
    let names: Vec<&Value> = actions["instanceActions"].as_array().unwrap().iter().map(|action| &action["action"]).collect();
    assert_eq!(names, ["unlock", "lock", "lock"]);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_operator_says_what_state_a_server_is_in(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let status = || async {
        let server = cloud.get("2.1", &format!("/v2.1/servers/{}", server_id(1))).await.json();
        json!([server["server"]["status"], server["server"]["OS-EXT-STS:task_state"]])
    };
    cloud.live_migrate(server_id(1), None).await.assert_empty(202);
    assert_eq!(status().await, json!(["MIGRATING", "migrating"]));
    act(&cloud, "admin", "2.1", json!({"os-resetState": {"state": "error"}})).await.assert_empty(202);
    assert_eq!(status().await, json!(["ERROR", null]));
    act(&cloud, "admin", "2.84", json!({"os-resetState": {"state": "active"}})).await.assert_empty(202);
    assert_eq!(status().await, json!(["ACTIVE", null]));
    let again = cloud.live_migrate(server_id(1), None).await;
    assert_eq!(again.status, 409, "the migration is still under way: {}", again.text);
    for (body, expected) in [
        (
            json!({"os-resetState": null}),
            "Invalid input for field/attribute os-resetState. Value: None. None is not of type 'object'",
        ),
        (
            json!({"os-resetState": {}}),
            "Invalid input for field/attribute os-resetState. Value: {}. 'state' is a required property",
        ),
        (
            json!({"os-resetState": {"state": "paused"}}),
            "Invalid input for field/attribute state. Value: paused. 'paused' is not one of ['active', 'error']",
        ),
        (
            json!({"os-resetState": {"state": "error", "x": 1}}),
            "Invalid input for field/attribute os-resetState. Value: {'state': 'error', 'x': 1}. Additional properties are not allowed ('x' was unexpected)",
        ),
    ] {
        act(&cloud, "admin", "2.1", body).await.assert_refusal(&format!("400 badRequest: {expected}"));
    }
    let member = act(&cloud, "alice:p1", "2.1", json!({"os-resetState": {"state": "error"}})).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-admin-actions:reset_state to be performed.");
}
