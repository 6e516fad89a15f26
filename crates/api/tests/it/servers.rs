//! `/servers`.

use drover_common::fault::Fault;
use drover_common::migration::Event;
use drover_common::server::VmState;
use drover_store::{actions, services};
use http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Cloud, golden, host_name, server_id};

/// Where something of a server changes.
const VERSIONS: [&str; 15] =
    ["2.1", "2.3", "2.9", "2.16", "2.19", "2.26", "2.47", "2.63", "2.71", "2.73", "2.84", "2.89", "2.90", "2.96", "2.100"];

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn every_version_has_its_fields(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let path = format!("/v2.1/servers/{}", server_id(1));
    let mut shown = json!({});
    for version in VERSIONS {
        let server = cloud.get(version, &path).await.json()["server"].clone();
        let listed = cloud.get(version, "/v2.1/servers/detail?all_tenants=1").await.json()["servers"][0].clone();
        let mut alone = server.clone();
        alone.as_object_mut().unwrap().remove("server_groups");
        assert_eq!(alone, listed, "{version}: only server_groups is for one server alone");
        shown[version] = server;
    }
    golden("server", &shown);
    golden("server_list", &cloud.get("2.1", "/v2.1/servers?all_tenants=1").await.json());
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn owners_see_their_servers_and_not_their_hosts(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.server_of(2, "h1", "p2", VmState::Active).await;
    let own = cloud.ask_as("alice:p1", Method::GET, "2.84", "/v2.1/servers/detail", None).await.json();
    assert_eq!(own["servers"].as_array().unwrap().len(), 1);
    golden("server_for_its_owner", &own["servers"][0]);
    let own = cloud.ask_as("alice:p1", Method::GET, "2.90", "/v2.1/servers/detail?hostname=^vm1$", None).await.json();
    assert_eq!(own["servers"][0]["OS-EXT-SRV-ATTR:hostname"], "vm1");
    let foreign = cloud.ask_as("alice:p1", Method::GET, "2.84", &format!("/v2.1/servers/{}", server_id(2)), None).await;
    foreign.assert_refusal(&format!("404 itemNotFound: Instance {} could not be found.", server_id(2)));
    let all = cloud.ask_as("alice:p1", Method::GET, "2.84", "/v2.1/servers?all_tenants=1", None).await;
    all.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:servers:index:get_all_tenants to be performed.");
    let all = cloud.ask_as("alice:p1", Method::GET, "2.84", "/v2.1/servers/detail?all_tenants=1", None).await;
    all.assert_refusal("403 forbidden: Policy doesn't allow os_compute_api:servers:detail:get_all_tenants to be performed.");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_status_follows_both_states_and_fault_and_progress_follow_the_status(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    for (n, vm_state) in
        [(2, VmState::Paused), (3, VmState::Stopped), (4, VmState::Error), (5, VmState::Active), (6, VmState::Paused)]
    {
        cloud.server_of(n, "h1", "p1", vm_state).await;
    }
    let mut conn = cloud.store.connection().await.unwrap();
    for n in 1..=6 {
        actions::record_fault(&mut conn, server_id(n), &Fault::precheck("an old one")).await.unwrap();
        actions::record_fault(&mut conn, server_id(n), &Fault::precheck("the latest")).await.unwrap();
    }
    drop(conn);
    cloud.live_migrate(server_id(5), None).await.assert_empty(202);
    cloud.live_migrate(server_id(6), None).await.assert_empty(202);
    let servers = cloud.get("2.1", "/v2.1/servers/detail?all_tenants=1").await.json();
    let mut table = json!({});
    for server in servers["servers"].as_array().unwrap() {
        table[server["name"].as_str().unwrap()] = json!([server["status"], server.get("progress"), server.get("fault")]);
    }
    golden("server_status", &table);
    let path = format!("/v2.1/servers/{}", server_id(4));
    let owner = cloud.ask_as("alice:p1", Method::GET, "2.1", &path, None).await.json();
    assert_eq!(owner["server"]["fault"].get("details"), None, "the details of a fault of code 500 are for admins");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn host_status_is_an_operators_word_before_the_heartbeat(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let status =
        || async { cloud.get("2.16", &format!("/v2.1/servers/{}", server_id(1))).await.json()["server"]["host_status"].clone() };
    assert_eq!(status().await, "UP");
    let mut conn = cloud.store.connection().await.unwrap();
    services::set(&mut conn, &host_name("h1"), Some(true), None, None).await.unwrap();
    assert_eq!(status().await, "MAINTENANCE");
    services::set(&mut conn, &host_name("h1"), None, None, Some(true)).await.unwrap();
    assert_eq!(status().await, "DOWN");
}

async fn names(cloud: &Cloud, version: &str, query: &str) -> Value {
    let encoded = query.replace('[', "%5B").replace(']', "%5D").replace('^', "%5E").replace('<', "%3C").replace('>', "%3E");
    let answer = cloud.get(version, &format!("/v2.1/servers?{encoded}")).await;
    if answer.status != 200 {
        return json!(answer.refusal());
    }
    answer.json()["servers"].as_array().unwrap().iter().map(|server| server["name"].clone()).collect()
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn filters_find_what_they_say(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.server_of(2, "h2", "p2", VmState::Paused).await;
    cloud.server_of(3, "h2", "admin", VmState::Stopped).await;
    cloud.server_of(4, "h2", "p2", VmState::Active).await;
    cloud.live_migrate(server_id(4), None).await.assert_empty(202);
    let mut table = json!({});
    for (version, query) in [
        ("2.1", ""),
        ("2.1", "all_tenants=0"),
        ("2.1", "all_tenants=1"),
        ("2.1", "all_tenants"),
        ("2.1", "all_tenants=xx"),
        ("2.1", "all_tenants=1&project_id=p2"),
        ("2.1", "all_tenants=1&tenant_id=p1"),
        ("2.1", "tenant_id=p1"),
        ("2.1", "all_tenants=1&name=vm[12]"),
        ("2.1", "all_tenants=1&name=m1"),
        ("2.1", "all_tenants=1&display_name=^vm3$"),
        ("2.1", "all_tenants=1&name=["),
        ("2.1", "all_tenants=1&name=(?P<x>v)"),
        ("2.1", "all_tenants=1&name=%25"),
        ("2.1", "all_tenants=1&host=h2"),
        ("2.1", "all_tenants=1&host=h%252"),
        ("2.1", "all_tenants=1&status=active"),
        ("2.1", "all_tenants=1&status=MIGRATING"),
        ("2.1", "all_tenants=1&status=paused&status=SHUTOFF"),
        ("2.1", "all_tenants=1&status=ACTIVE&status=MIGRATING"),
        ("2.1", "all_tenants=1&status=BUILD"),
        ("2.1", "all_tenants=1&status=foo"),
        ("2.38", "all_tenants=1&status=foo"),
        ("2.38", "all_tenants=1&status=BUILD"),
        ("2.1", "all_tenants=1&status=DELETED"),
        ("2.1", "all_tenants=1&vm_state=active"),
        ("2.1", "all_tenants=1&vm_state=foo"),
        ("2.1", "all_tenants=1&task_state=migrating"),
        ("2.1", "all_tenants=1&uuid=00000000-0000-0000-0000-000000000002"),
        ("2.1", "all_tenants=1&uuid=2"),
        ("2.1", "all_tenants=1&deleted=False"),
        ("2.1", "all_tenants=1&deleted=True"),
        ("2.1", "all_tenants=1&changes-since=2001-01-01T00:00:00Z"),
        ("2.1", "all_tenants=1&changes-since=2999-01-01"),
        ("2.1", "all_tenants=1&changes-since=foo"),
        ("2.66", "all_tenants=1&changes-before=2001-01-01"),
        ("2.66", "all_tenants=1&changes-since=2002-01-01&changes-before=2001-01-01"),
        ("2.1", "all_tenants=1&metadata=x"),
        ("2.1", "all_tenants=1&user_id=alice&flavor=m1.small&config_drive=False&soft_deleted=0&launch_index=0"),
        ("2.1", "all_tenants=1&user_id=bob"),
        ("2.1", "all_tenants=1&flavor=2"),
        ("2.1", "all_tenants=1&node=^h2.ex"),
        ("2.1", "all_tenants=1&node=nope"),
        ("2.1", "all_tenants=1&node=["),
        ("2.1", "all_tenants=1&hostname=vm[34]"),
        ("2.1", "all_tenants=1&power_state=3"),
        ("2.1", "all_tenants=1&power_state=paused"),
        ("2.1", "all_tenants=1&progress=0"),
        ("2.1", "all_tenants=1&progress=12345678901"),
        ("2.1", "all_tenants=1&created_at=2001-01-01T00:00:00Z"),
        ("2.1", "all_tenants=1&launched_at=x"),
        ("2.1", "all_tenants=1&terminated_at=2001-01-01T00:00:00Z"),
        ("2.1", "all_tenants=1&image=70a599e0-31e7-49b7-b260-868f441e862b"),
        ("2.1", "all_tenants=1&image="),
        ("2.1", "all_tenants=1&ip=192.0.2"),
        ("2.1", "all_tenants=1&ip6=2001"),
        ("2.1", "all_tenants=1&key_name=k"),
        ("2.1", "all_tenants=1&description=x"),
        ("2.1", "all_tenants=1&reservation_id=r-1"),
        ("2.1", "all_tenants=1&kernel_id=x"),
        ("2.72", "all_tenants=1&locked=True"),
        ("2.73", "all_tenants=1&locked=True"),
        ("2.73", "all_tenants=1&locked=false"),
        ("2.73", "all_tenants=1&locked=perhaps"),
        ("2.1", "all_tenants=1&_x=y"),
        ("2.74", "all_tenants=1&unknown=x"),
        ("2.75", "all_tenants=1&unknown=x"),
    ] {
        table[format!("{version} {query}")] = names(&cloud, version, query).await;
    }
    golden("server_filters", &table);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn what_only_admins_may_filter_by_is_dropped_for_others(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.server(2, "h2").await;
    let count = |version: &'static str, query: &'static str| {
        let cloud = &cloud;
        async move {
            let answer = cloud.ask_as("alice:p1", Method::GET, version, &format!("/v2.1/servers?{query}"), None).await;
            answer.json()["servers"].as_array().map_or(0, Vec::len)
        }
    };
    assert_eq!(count("2.1", "host=h2").await, 2);
    assert_eq!(count("2.84", "host=h2").await, 2);
    assert_eq!(count("2.82", "vm_state=paused").await, 2);
    assert_eq!(count("2.83", "vm_state=paused").await, 0);
    let deleted = cloud.ask_as("alice:p1", Method::GET, "2.1", "/v2.1/servers?status=deleted", None).await;
    deleted.assert_refusal("403 forbidden: Only administrators may list deleted instances");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn pages_are_linked(pool: PgPool) {
    let cloud = Cloud::new(pool);
    for n in 1..=5 {
        cloud.server_of(n, "h1", "admin", VmState::Active).await;
    }
    for collection in ["servers", "servers/detail"] {
        let mut path = format!("/v2.1/{collection}?limit=2&name=vm");
        let mut pages = Vec::new();
        loop {
            let page = cloud.get("2.1", &path).await.json();
            let names: Vec<Value> = page["servers"].as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
            pages.push(json!(names));
            let Some(next) = page["servers_links"][0]["href"].as_str() else { break };
            assert!(next.starts_with(&format!("http://api:8774/v2.1/{collection}?limit=2&name=vm&marker=")), "{next}");
            path = next.trim_start_matches("http://api:8774").to_owned();
        }
        assert_eq!(json!(pages), json!([["vm5", "vm4"], ["vm3", "vm2"], ["vm1"]]));
    }
    assert_eq!(cloud.get("2.1", "/v2.1/servers?limit=0").await.json(), json!({"servers": []}));
    let full = cloud.get("2.1", "/v2.1/servers?limit=5").await.json();
    assert!(full["servers_links"].is_array(), "a page that is exactly full has a link, too");
    for (query, expected) in [
        ("limit=-1", "400 badRequest: Invalid input for query parameters limit. Value: -1. '-1' does not match '^[0-9]*$'"),
        ("marker=foo", "400 badRequest: marker [foo] not found"),
        ("marker=00000000-0000-0000-0000-000000000099", "400 badRequest: marker [00000000-0000-0000-0000-000000000099] not found"),
    ] {
        cloud.get("2.1", &format!("/v2.1/servers?{query}")).await.assert_refusal(expected);
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_migrating_server_shows_where_it_still_is(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    cloud.live_migrate(server_id(1), Some("h2")).await.assert_empty(202);
    let migration = cloud.open_migration(server_id(1)).await;
    cloud.advance(migration.id, Event::Claimed, |row| row.destination = Some(host_name("h2"))).await;
    let server = cloud.get("2.1", &format!("/v2.1/servers/{}", server_id(1))).await.json();
    assert_eq!(
        (&server["server"]["status"], &server["server"]["OS-EXT-STS:task_state"], &server["server"]["OS-EXT-SRV-ATTR:host"]),
        (&json!("MIGRATING"), &json!("migrating"), &json!("h1"))
    );
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_order_is_the_callers(pool: PgPool) {
    let cloud = Cloud::new(pool);
    for (n, host) in [(1, "h2"), (2, "h1"), (3, "h2"), (4, "h1")] {
        cloud.server_of(n, host, "admin", VmState::Active).await;
    }
    let mut table = json!({});
    for (version, query) in [
        ("2.1", ""),
        ("2.1", "sort_dir=asc"),
        ("2.1", "sort_key=display_name"),
        ("2.1", "sort_key=display_name&sort_dir=asc"),
        ("2.1", "sort_key=host&sort_dir=asc"),
        ("2.1", "sort_key=host&sort_dir=asc&sort_key=display_name&sort_dir=desc"),
        ("2.1", "sort_key=host&sort_key=display_name&sort_dir=desc&sort_dir=asc&limit=3"),
        ("2.1", "sort_key=key_name&sort_dir=asc"),
        ("2.1", "sort_key=host&sort_dir=asc&sort_dir=asc"),
        ("2.1", "sort_key=host&sort_dir=up"),
        ("2.74", "sort_key=vcpus&sort_dir=asc"),
        ("2.75", "sort_key=vcpus&sort_dir=asc"),
        ("2.72", "sort_key=locked"),
        ("2.73", "sort_key=locked&sort_dir=asc"),
    ] {
        table[format!("{version} {query}")] = names(&cloud, version, query).await;
    }
    golden("server_order", &table);
    for key in ["host", "node"] {
        let refused = cloud.ask_as("alice:p1", Method::GET, "2.1", &format!("/v2.1/servers?sort_key={key}"), None).await;
        refused.assert_refusal(&format!("403 forbidden: Only administrators can sort servers by {key}"));
    }
    let mut path = "/v2.1/servers?limit=3&sort_key=host&sort_dir=asc&sort_key=display_name&sort_dir=desc".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = cloud.get("2.1", &path).await.json();
        pages.push(page["servers"].as_array().unwrap().iter().map(|s| s["name"].clone()).collect::<Value>());
        let Some(next) = page["servers_links"][0]["href"].as_str() else { break };
        path = next.trim_start_matches("http://api:8774").to_owned();
    }
    assert_eq!(json!(pages), json!([["vm4", "vm2", "vm3"], ["vm1"]]), "repeated parameters survive in the link");
}
