//! `/servers/{id}/metadata` and `/servers/{id}/tags`, and the filters by tags.

use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Answer, Cloud, server_id};

async fn call(cloud: &Cloud, token: &str, method: &Method, version: &str, path: &str, body: Value) -> Answer {
    let body = Some(body).filter(|body| !body.is_null());
    let path = format!("/v2.1/servers/{}/{path}", server_id(1));
    cloud.ask_as(token, method.clone(), version, &path, body.as_ref()).await
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn metadata_is_merged_replaced_and_deleted(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    for (method, path, body, expected) in [
        (&get, "metadata", json!(null), json!({"metadata": {}})),
        (&post, "metadata", json!({"metadata": {"a": "1", "b": "2"}}), json!({"metadata": {"a": "1", "b": "2"}})),
        (&post, "metadata", json!({"metadata": {"b": "3"}}), json!({"metadata": {"a": "1", "b": "3"}})),
        (&put, "metadata/c", json!({"meta": {"c": "4"}}), json!({"meta": {"c": "4"}})),
        (&get, "metadata/c", json!(null), json!({"meta": {"c": "4"}})),
        (&put, "metadata", json!({"metadata": {"d": ""}}), json!({"metadata": {"d": ""}})),
        (&get, "metadata", json!(null), json!({"metadata": {"d": ""}})),
    ] {
        let answer = call(&cloud, "alice:p1", method, "2.1", path, body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, expected), "{method} {path} {body}");
    }
    let server = cloud.get("2.1", &format!("/v2.1/servers/{}", server_id(1))).await.json();
    assert_eq!(server["server"]["metadata"], json!({"d": ""}));
    call(&cloud, "alice:p1", &delete, "2.1", "metadata/d", json!(null)).await.assert_empty(204);
    let many: serde_json::Map<String, Value> = (0..129).map(|n| (format!("k{n}"), json!("v"))).collect();
    for (method, path, body, expected) in [
        (&delete, "metadata/d", json!(null), "404 itemNotFound: Metadata item was not found"),
        (&get, "metadata/d", json!(null), "404 itemNotFound: Metadata item was not found"),
        (&put, "metadata/x", json!({"meta": {"y": "1"}}), "400 badRequest: Request body and URI mismatch"),
        (
            &post,
            "metadata",
            json!({"metadata": {"a": 1}}),
            "400 badRequest: Invalid input for field/attribute a. Value: 1. 1 is not of type 'string'",
        ),
        (&post, "metadata", json!({"metadata": many}), "403 forbidden: Maximum number of metadata items exceeds 128"),
    ] {
        call(&cloud, "alice:p1", method, "2.1", path, body).await.assert_refusal(expected);
    }
    let foreign = call(&cloud, "bob:p2", &get, "2.1", "metadata", json!(null)).await;
    foreign.assert_refusal(&format!("404 itemNotFound: Instance {} could not be found.", server_id(1)));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn tags_are_put_shown_and_deleted_since_2_26(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let (get, put, delete) = (Method::GET, Method::PUT, Method::DELETE);
    let early = call(&cloud, "alice:p1", &get, "2.25", "tags", json!(null)).await;
    early.assert_refusal("404 itemNotFound: The resource could not be found.");
    let tags = || async { call(&cloud, "alice:p1", &get, "2.26", "tags", json!(null)).await.json()["tags"].clone() };
    let first = call(&cloud, "alice:p1", &put, "2.26", "tags/red", json!(null)).await;
    first.assert_empty(201);
    assert_eq!(first.header("location"), format!("http://api:8774/v2.1/servers/{}/tags/red", server_id(1)));
    call(&cloud, "alice:p1", &put, "2.26", "tags/red", json!(null)).await.assert_empty(204);
    let all = call(&cloud, "alice:p1", &put, "2.26", "tags", json!({"tags": ["blue", "green", "blue"]})).await;
    assert_eq!((all.status.as_u16(), all.json()), (200, json!({"tags": ["blue", "green"]})));
    call(&cloud, "alice:p1", &get, "2.26", "tags/blue", json!(null)).await.assert_empty(204);
    let server = cloud.get("2.26", &format!("/v2.1/servers/{}", server_id(1))).await.json();
    assert_eq!(server["server"]["tags"], json!(["blue", "green"]));
    call(&cloud, "alice:p1", &delete, "2.26", "tags/blue", json!(null)).await.assert_empty(204);
    assert_eq!(tags().await, json!(["green"]));
    let missing = format!("404 itemNotFound: Server {} has no tag 'blue'", server_id(1));
    call(&cloud, "alice:p1", &delete, "2.26", "tags/blue", json!(null)).await.assert_refusal(&missing);
    call(&cloud, "alice:p1", &get, "2.26", "tags/blue", json!(null)).await.assert_refusal(&missing);
    let bad = call(&cloud, "alice:p1", &put, "2.26", "tags/a%2Cb", json!(null)).await;
    bad.assert_refusal("400 badRequest: Invalid input for field/attribute 0. Value: a,b. 'a,b' does not match '^[^,/]*$'");
    let fifty: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
    assert_eq!(call(&cloud, "alice:p1", &put, "2.26", "tags", json!({"tags": fifty})).await.status, 200);
    let full = call(&cloud, "alice:p1", &put, "2.26", "tags/more", json!(null)).await;
    full.assert_refusal("400 badRequest: The number of tags exceeded the per-server limit 50");
    call(&cloud, "alice:p1", &delete, "2.26", "tags", json!(null)).await.assert_empty(204);
    assert_eq!(tags().await, json!([]));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn servers_are_found_by_tags(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.server(2, "h1").await;
    let put = json!({"tags": ["red", "blue"]});
    assert_eq!(call(&cloud, "alice:p1", &Method::PUT, "2.26", "tags", put).await.status, 200);
    for (version, query, expected) in [
        ("2.26", "tags=red,blue", json!(["vm1"])),
        ("2.26", "tags=red,green", json!([])),
        ("2.26", "tags-any=red,green", json!(["vm1"])),
        ("2.26", "not-tags=red,green", json!(["vm2", "vm1"])),
        ("2.26", "not-tags=red,blue", json!(["vm2"])),
        ("2.26", "not-tags-any=red,green", json!(["vm2"])),
        ("2.25", "tags=green", json!(["vm2", "vm1"])),
    ] {
        let found = cloud.ask_as("alice:p1", Method::GET, version, &format!("/v2.1/servers?{query}"), None).await.json();
        let names: Value = found["servers"].as_array().unwrap().iter().map(|server| server["name"].clone()).collect();
        assert_eq!(names, expected, "{version} {query}");
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_lock_and_a_wrong_state_keep_labels_as_they_are(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let act = |body: Value| {
        let cloud = &cloud;
        async move { cloud.ask(Method::POST, "2.1", &format!("/v2.1/servers/{}/action", server_id(1)), Some(&body)).await }
    };
    let id = server_id(1);
    act(json!({"lock": null})).await.assert_empty(202);
    let body = json!({"metadata": {"a": "1"}});
    let locked = call(&cloud, "alice:p1", &Method::POST, "2.1", "metadata", body.clone()).await;
    locked.assert_refusal(&format!("409 conflictingRequest: Instance {id} is locked"));
    act(json!({"unlock": null})).await.assert_empty(202);
    act(json!({"os-resetState": {"state": "error"}})).await.assert_empty(202);
    let refused = call(&cloud, "alice:p1", &Method::POST, "2.1", "metadata", body).await;
    refused
        .assert_refusal(&format!("409 conflictingRequest: Cannot 'update metadata' instance {id} while it is in vm_state error"));
    let refused = call(&cloud, "alice:p1", &Method::PUT, "2.26", "tags/x", json!(null)).await;
    refused.assert_refusal(&format!("409 conflictingRequest: Cannot 'update tag' instance {id} while it is in vm_state error"));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn limits_show_what_a_project_has_and_extensions_never_change(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let mut shown = json!({});
    for version in ["2.1", "2.36", "2.39", "2.57"] {
        shown[version] = cloud.ask_as("alice:p1", Method::GET, version, "/v2.1/limits", None).await.json();
    }
    crate::fixture::golden("limits", &shown);
    let other = cloud.ask_as("alice:p2", Method::GET, "2.1", "/v2.1/limits?tenant_id=p1", None).await;
    other.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:limits:other_project to be performed.");
    let other = cloud.get("2.1", "/v2.1/limits?tenant_id=p1").await.json();
    assert_eq!(other["limits"]["absolute"]["totalInstancesUsed"], 1);
    let list = cloud.ask_as("alice:p1", Method::GET, "2.1", "/v2.1/extensions", None).await.json();
    let one = cloud.get("2.84", "/v2.1/extensions/os-aggregates").await.json();
    assert!(list["extensions"].as_array().unwrap().contains(&one["extension"]));
    assert_eq!(cloud.get("2.1", "/v2.1/extensions/nope").await.status, 404);
}
