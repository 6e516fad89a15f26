//! `/os-server-groups`.

use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Cloud, golden, server_id};

const PATH: &str = "/v2.1/os-server-groups";

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_version_has_its_form(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let mut shown = Vec::new();
    for (version, group) in [
        ("2.1", json!({"name": "g1", "policies": ["affinity"]})),
        ("2.13", json!({"name": "g2", "policies": ["anti-affinity"]})),
        ("2.14", json!({"name": "g3", "policies": ["soft-affinity"]})),
        ("2.15", json!({"name": "g3", "policies": ["soft-affinity"]})),
        ("2.15", json!({"name": "g4", "policies": []})),
        ("2.15", json!({"name": "g4", "policies": ["affinity", "anti-affinity"]})),
        ("2.63", json!({"name": "g4", "policy": "affinity"})),
        ("2.64", json!({"name": "g4", "policies": ["affinity"]})),
        ("2.64", json!({"name": "g4", "policy": "soft-anti-affinity"})),
        ("2.64", json!({"name": "g5", "policy": "anti-affinity", "rules": {"max_server_per_host": 3}})),
        ("2.64", json!({"name": "g6", "policy": "anti-affinity", "rules": {"max_server_per_host": "2"}})),
        ("2.64", json!({"name": "g7", "policy": "anti-affinity", "rules": {"max_server_per_host": 0}})),
        ("2.64", json!({"name": "g7", "policy": "anti-affinity", "rules": {"max_server_per_host": "0"}})),
        ("2.64", json!({"name": "g7", "policy": "affinity", "rules": {"max_server_per_host": 3}})),
        ("2.64", json!({"name": "g7", "policy": "affinity", "rules": {"x": 3}})),
        ("2.64", json!({"name": "", "policy": "affinity"})),
    ] {
        let answer = cloud.ask(Method::POST, version, PATH, Some(&json!({"server_group": group}))).await;
        let said = if answer.status == 200 { answer.json() } else { json!(answer.refusal()) };
        shown.push(json!({"version": version, "group": group, "said": said}));
    }
    golden("server_groups", &json!(shown));
    for (query, count) in [("", 6), ("?limit=2", 2), ("?limit=2&offset=5", 1), ("?offset=9", 0), ("?all_projects=1", 6)] {
        let list = cloud.get("2.84", &format!("{PATH}{query}")).await.json();
        assert_eq!(list["server_groups"].as_array().unwrap().len(), count, "{query}");
    }
    cloud
        .get("2.75", &format!("{PATH}?x=1"))
        .await
        .assert_refusal("400 badRequest: Additional properties are not allowed ('x' was unexpected)");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_group_is_its_projects_and_shows_its_members(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let body = json!({"server_group": {"name": "g", "policy": "affinity"}});
    let made = cloud.ask_as("alice:p1", Method::POST, "2.64", PATH, Some(&body)).await.json();
    let id = made["server_group"]["id"].as_str().unwrap().to_owned();
    let path = format!("{PATH}/{id}");
    let placement = json!({"placement": {"availability_zone": null, "server_group": id}});
    let put = format!("/drover/v1/servers/{}/placement", server_id(1));
    assert_eq!(cloud.ask(Method::PUT, "2.1", &put, Some(&placement)).await.json(), placement);
    let shown = cloud.ask_as("alice:p1", Method::GET, "2.64", &path, None).await.json();
    assert_eq!(shown["server_group"]["members"], json!([server_id(1)]));
    let server = cloud.get("2.71", &format!("/v2.1/servers/{}", server_id(1))).await.json();
    assert_eq!(server["server"]["server_groups"], json!([id]));
    let gone = format!("404 itemNotFound: Instance group {id} could not be found.");
    cloud.ask_as("bob:p2", Method::GET, "2.64", &path, None).await.assert_refusal(&gone);
    cloud.ask_as("bob:p2", Method::DELETE, "2.64", &path, None).await.assert_refusal(&gone);
    assert_eq!(cloud.ask_as("bob:p2", Method::GET, "2.64", PATH, None).await.json(), json!({"server_groups": []}));
    assert_eq!(cloud.get("2.64", &path).await.status, 200, "admins see all");
    cloud.ask_as("alice:p1", Method::DELETE, "2.64", &path, None).await.assert_empty(204);
    cloud.ask_as("alice:p1", Method::DELETE, "2.64", &path, None).await.assert_refusal(&gone);
    let server = cloud.get("2.71", &format!("/v2.1/servers/{}", server_id(1))).await.json();
    assert_eq!(server["server"]["server_groups"], Value::Array(Vec::new()));
}
