//! `/os-hypervisors`.

use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::Cloud;
use crate::fixture::golden;

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_version_has_its_fields(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let mut shown = json!({});
    for version in ["2.1", "2.28", "2.33", "2.53", "2.84", "2.87", "2.88", "2.100"] {
        let list = cloud.get(version, "/v2.1/os-hypervisors").await.json();
        let detail = cloud.get(version, "/v2.1/os-hypervisors/detail").await.json();
        let id = detail["hypervisors"][0]["id"].clone();
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        let one = cloud.get(version, &format!("/v2.1/os-hypervisors/{id}")).await.json();
        assert_eq!(one["hypervisor"], detail["hypervisors"][0], "{version}");
        shown[version] = json!({"list": list, "show": one});
    }
    golden("hypervisors", &shown);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn servers_are_listed_when_asked_for(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let servers = |version: &'static str, query: &'static str| {
        let cloud = &cloud;
        async move {
            let list = cloud.get(version, &format!("/v2.1/os-hypervisors?{query}")).await.json();
            let hypervisors = list["hypervisors"].as_array().unwrap().clone();
            hypervisors.iter().map(|h| h.get("servers").cloned().unwrap_or(json!("no key"))).collect::<Value>()
        }
    };
    let vm1 = json!([{"name": "instance-00000001", "uuid": "00000000-0000-0000-0000-000000000001"}]);
    assert_eq!(servers("2.53", "").await, json!(["no key", "no key"]));
    assert_eq!(servers("2.53", "with_servers=true").await, json!([vm1, "no key"]));
    assert_eq!(servers("2.75", "with_servers=True").await, json!([vm1, []]));
    assert_eq!(servers("2.75", "with_servers=0").await, json!(["no key", "no key"]));
    assert_eq!(servers("2.75", "with_servers=1&hypervisor_hostname_pattern=h1").await, json!([vm1]));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn what_cannot_be_is_refused_in_novas_words(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    for (version, path, expected) in [
        ("2.53", "?hypervisor_hostname_pattern=nope", "404 itemNotFound: No hypervisor matching 'nope' could be found."),
        ("2.53", "?hypervisor_hostname_pattern=%25", "404 itemNotFound: No hypervisor matching '%' could be found."),
        (
            "2.53",
            "?hypervisor_hostname_pattern=h&limit=1",
            "400 badRequest: The server could not comply with the request since it is either malformed or otherwise incorrect.",
        ),
        ("2.53", "?foo=1", "400 badRequest: Additional properties are not allowed ('foo' was unexpected)"),
        ("2.33", "?marker=99", "400 badRequest: marker [99] not found"),
        ("2.53", "/foo", "400 badRequest: Invalid uuid foo"),
        (
            "2.53",
            "/00000000-0000-0000-0000-000000000000",
            "404 itemNotFound: Hypervisor with ID '00000000-0000-0000-0000-000000000000' could not be found.",
        ),
        ("2.1", "/99", "404 itemNotFound: Hypervisor with ID '99' could not be found."),
        ("2.1", "/foo", "404 itemNotFound: Hypervisor with ID 'foo' could not be found."),
    ] {
        let answer = cloud.get(version, &format!("/v2.1/os-hypervisors{path}")).await;
        assert_eq!(answer.refusal(), expected, "{version} {path}");
    }
    let member = cloud.ask_as("alice:p1", Method::GET, "2.1", "/v2.1/os-hypervisors", None).await;
    member.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:os-hypervisors:list to be performed.");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn pages_begin_with_2_33(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let list = |version: &'static str, query: String| {
        let cloud = &cloud;
        async move { cloud.get(version, &format!("/v2.1/os-hypervisors{query}")).await.json() }
    };
    assert_eq!(list("2.32", "?limit=1".to_owned()).await["hypervisors"].as_array().unwrap().len(), 2);
    for version in ["2.33", "2.53"] {
        let first = list(version, "?limit=1".to_owned()).await;
        let next = first["hypervisors_links"][0]["href"].as_str().unwrap();
        let second = list(version, format!("?{}", next.split_once('?').unwrap().1)).await;
        assert_eq!(second["hypervisors"][0]["hypervisor_hostname"], "h2.example");
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn search_and_servers_until_2_52_and_statistics(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let mut shown = json!({});
    for (version, path) in [
        ("2.1", "h1/search"),
        ("2.52", "h/search"),
        ("2.1", "nope/search"),
        ("2.53", "h1/search"),
        ("2.1", "h/servers"),
        ("2.52", "h1.example/servers"),
        ("2.52", "nope/servers"),
        ("2.53", "h1/servers"),
        ("2.1", "statistics"),
        ("2.87", "statistics"),
        ("2.88", "statistics"),
        ("2.88", "00000000-0000-0000-0000-00000000aa01/uptime"),
        ("2.87", "00000000-0000-0000-0000-00000000aa01/uptime"),
        ("2.1", "1/uptime"),
        ("2.1", "99/uptime"),
        ("2.53", "1/uptime"),
    ] {
        let answer = cloud.get(version, &format!("/v2.1/os-hypervisors/{path}")).await;
        shown[format!("{version} {path}")] = if answer.status == 200 { answer.json() } else { json!(answer.refusal()) };
    }
    golden("hypervisors_by_pattern", &shown);
    for path in ["h/search", "h/servers", "statistics", "1/uptime"] {
        let member = cloud.ask_as("alice:p1", Method::GET, "2.1", &format!("/v2.1/os-hypervisors/{path}"), None).await;
        let rule = path.rsplit('/').next().unwrap();
        member
            .assert_refusal(&format!("403 forbidden: Policy doesn't allow os_compute_api:os-hypervisors:{rule} to be performed."));
    }
}
