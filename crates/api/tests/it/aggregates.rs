//! `/os-aggregates` and `/os-availability-zone`.

use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Cloud, golden, server_id};

async fn call(cloud: &Cloud, method: Method, version: &str, path: &str, body: Value) -> Value {
    let body = Some(body).filter(|body| !body.is_null());
    let answer = cloud.ask(method, version, &format!("/v2.1/os-aggregates{path}"), body.as_ref()).await;
    match (answer.status.as_u16(), answer.text.is_empty()) {
        (200, true) => json!("200, empty"),
        (200, false) => answer.json(),
        _ => json!(answer.refusal()),
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn aggregates_are_made_changed_and_removed(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let mut shown = Vec::new();
    for (method, version, path, body) in [
        (&get, "2.1", "", json!(null)),
        (&post, "2.1", "", json!({"aggregate": {"name": "a1"}})),
        (&post, "2.41", "", json!({"aggregate": {"name": "a2", "availability_zone": "az2"}})),
        (&post, "2.1", "", json!({"aggregate": {"name": "a2"}})),
        (&post, "2.1", "", json!({"aggregate": {"name": " a3"}})),
        (&post, "2.1", "", json!({"aggregate": {"name": "a3", "x": 1}})),
        (&post, "2.1", "", json!({"aggregate": {"availability_zone": "az3"}})),
        (&put, "2.1", "/1", json!({"aggregate": {"name": "one", "availability_zone": "az1"}})),
        (&put, "2.1", "/1", json!({"aggregate": {"name": "a2"}})),
        (&put, "2.1", "/1", json!({"aggregate": {}})),
        (&put, "2.1", "/99", json!({"aggregate": {"name": "x"}})),
        (&post, "2.1", "/1/action", json!({"add_host": {"host": "h1"}})),
        (&post, "2.1", "/1/action", json!({"add_host": {"host": "h1"}})),
        (&post, "2.1", "/2/action", json!({"add_host": {"host": "h1"}})),
        (&post, "2.1", "/1/action", json!({"add_host": {"host": "nope"}})),
        (&post, "2.1", "/99/action", json!({"add_host": {"host": "h1"}})),
        (&post, "2.1", "/1/action", json!({"set_metadata": {"metadata": {"ssd": "true", "gone": null}}})),
        (&post, "2.1", "/1/action", json!({"set_metadata": {"metadata": {"availability_zone": ""}}})),
        (&post, "2.1", "/1/action", json!({"set_metadata": {"metadata": {"k": 5}}})),
        (&post, "2.1", "/1/action", json!({"set_metadata": {"metadata": {"k/": "v"}}})),
        (&post, "2.1", "/1/action", json!({"set_metadata": {"metadata": {"ssd": null}}})),
        (&post, "2.1", "/1/action", json!({"explode": null})),
        (&get, "2.41", "/1", json!(null)),
        (&get, "2.1", "/x", json!(null)),
        (&delete, "2.1", "/1", json!(null)),
        (&post, "2.1", "/1/action", json!({"remove_host": {"host": "h1"}})),
        (&post, "2.1", "/1/action", json!({"remove_host": {"host": "h1"}})),
        (&put, "2.1", "/1", json!({"aggregate": {"availability_zone": null}})),
        (&delete, "2.1", "/1", json!(null)),
        (&delete, "2.1", "/1", json!(null)),
        (&get, "2.84", "", json!(null)),
    ] {
        let said = call(&cloud, method.clone(), version, path, body.clone()).await;
        shown.push(json!({"request": format!("{method} {version} {path} {body}"), "answer": said}));
    }
    golden("aggregates", &json!(shown));
    let member = cloud.ask_as("alice:p1", Method::GET, "2.1", "/v2.1/os-aggregates", None).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-aggregates:index to be performed.");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn an_aggregate_makes_a_zone_that_shows_everywhere(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    call(&cloud, Method::POST, "2.1", "", json!({"aggregate": {"name": "a1", "availability_zone": "az1"}})).await;
    call(&cloud, Method::POST, "2.1", "/1/action", json!({"add_host": {"host": "h1"}})).await;
    let list = cloud.ask_as("alice:p1", Method::GET, "2.1", "/v2.1/os-availability-zone", None).await.json();
    let detail = cloud.get("2.1", "/v2.1/os-availability-zone/detail").await.json();
    golden("availability_zones", &json!({"list": list, "detail": detail}));
    let member = cloud.ask_as("alice:p1", Method::GET, "2.1", "/v2.1/os-availability-zone/detail", None).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-availability-zone:detail to be performed.");
    let server = cloud.get("2.1", &format!("/v2.1/servers/{}", server_id(1))).await.json();
    assert_eq!(server["server"]["OS-EXT-AZ:availability_zone"], "az1");
    for (zone, count) in [("az1", 1), ("nova", 0), ("x", 0)] {
        let found = cloud.get("2.1", &format!("/v2.1/servers?all_tenants=1&availability_zone={zone}")).await.json();
        assert_eq!(found["servers"].as_array().unwrap().len(), count, "{zone}");
    }
    let services = cloud.get("2.1", "/v2.1/os-services?binary=nova-compute").await.json();
    assert_eq!((&services["services"][0]["zone"], &services["services"][1]["zone"]), (&json!("az1"), &json!("nova")));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_zone_is_not_taken_from_under_a_pinned_server(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let path = format!("/drover/v1/servers/{}/placement", server_id(1));
    let pinned = json!({"placement": {"availability_zone": "az1", "server_group": null}});
    assert_eq!(cloud.ask(Method::PUT, "2.1", &path, Some(&pinned)).await.json(), pinned);
    assert_eq!(cloud.ask(Method::GET, "2.1", &path, None).await.json(), pinned);
    call(&cloud, Method::POST, "2.1", "", json!({"aggregate": {"name": "a2", "availability_zone": "az2"}})).await;
    let refused = call(&cloud, Method::POST, "2.1", "/1/action", json!({"add_host": {"host": "h1"}})).await;
    let reason = "Cannot add host to aggregate 1. Reason: h1 has servers that must stay in availability zone az1.";
    assert_eq!(refused, format!("409 conflictingRequest: {reason}"));
    let group = json!({"placement": {"availability_zone": null, "server_group": "00000000-0000-0000-0000-000000000009"}});
    let refused = cloud.ask(Method::PUT, "2.1", &path, Some(&group)).await;
    refused.assert_refusal("400 badRequest: Instance group 00000000-0000-0000-0000-000000000009 could not be found.");
}
