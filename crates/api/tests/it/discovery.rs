//! Version documents and the negotiation of microversions.

use axum::body::Body;
use http::{Method, Request};
use serde_json::json;
use sqlx::PgPool;

use crate::fixture::{Answer, Cloud, golden};

async fn get(cloud: &Cloud, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().uri(path).header("host", "api:8774");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    cloud.send(request.body(Body::empty()).unwrap()).await
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn version_documents_are_read_without_a_token(pool: PgPool) {
    let cloud = Cloud::new(pool);
    let mut documents = json!({});
    for (path, status) in [
        ("/", 200),
        ("/v2.1", 200),
        ("/v2.1/", 200),
        ("/v2", 200),
        ("/v2/", 200),
        ("/foo", 300),
        ("/v3/servers?x=1", 300),
        ("/v2.10", 300),
    ] {
        let answer = get(&cloud, path, &[]).await;
        assert_eq!(answer.status, status, "{path}");
        documents[path] = answer.json();
        let in_api = path.starts_with("/v2.1") && status == 200;
        assert_eq!(answer.header("x-openstack-nova-api-version"), if in_api { "2.1" } else { "-" }, "{path}");
        assert_eq!(answer.header("x-openstack-request-id") != "-", path.starts_with("/v2") && status == 200, "{path}");
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
    }
    assert_eq!(documents["/v2.1"], documents["/v2.1/"]);
    golden("version_documents", &documents);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn links_follow_the_requests_host_unless_a_proxy_is_configured(pool: PgPool) {
    let cloud = Cloud::new(pool);
    let answer = get(&cloud, "/v2.1", &[]).await;
    assert_eq!(answer.json()["version"]["links"][0]["href"], "http://api:8774/v2.1/");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_negotiated_version_is_echoed_and_what_is_out_of_range_is_406(pool: PgPool) {
    let cloud = Cloud::new(pool);
    let mut table = Vec::new();
    for (standard, legacy) in [
        (None, None),
        (Some("compute 2.30"), None),
        (Some("compute 2.30"), Some("2.5")),
        (Some("volume 3.0"), None),
        (Some("2.80"), None),
        (Some("compute latest"), None),
        (None, Some("latest")),
        (None, Some("2.60")),
        (None, Some("foo")),
        (Some("compute 2.01"), None),
        (Some("compute 2"), None),
        (Some("compute 2.0"), None),
        (Some("compute 2.999"), None),
        (None, Some("3.0")),
    ] {
        let mut headers = Vec::new();
        headers.extend(standard.map(|value| ("OpenStack-API-Version", value)));
        headers.extend(legacy.map(|value| ("X-OpenStack-Nova-API-Version", value)));
        for path in ["/v2.1", "/v2.1/servers"] {
            let answer = get(&cloud, path, &headers).await;
            table.push(json!({
                "path": path,
                "asked": [standard, legacy],
                "status": answer.status.as_u16(),
                "answered": [answer.header("openstack-api-version"), answer.header("x-openstack-nova-api-version"), answer.header("vary")],
                "fault": if answer.status.is_success() { json!(null) } else { answer.json() },
            }));
        }
    }
    golden("negotiation", &json!(table));
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn faults_name_the_version_too_and_the_legacy_mount_knows_none(pool: PgPool) {
    let cloud = Cloud::new(pool);
    let fault = cloud.get("2.30", "/v2.1/servers/nothing").await;
    assert_eq!((fault.status.as_u16(), fault.header("x-openstack-nova-api-version")), (404, "2.30"));
    let legacy = cloud.get("2.999", "/v2/servers").await;
    assert_eq!((legacy.status.as_u16(), legacy.header("x-openstack-nova-api-version"), legacy.header("vary")), (200, "-", "-"));
    assert_ne!(legacy.header("x-openstack-request-id"), "-");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_resource_of_another_version_does_not_exist(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let server = "/v2.1/servers/00000000-0000-0000-0000-000000000001";
    for (method, path, version) in [
        (Method::GET, format!("{server}/migrations"), "2.22"),
        (Method::GET, format!("{server}/migrations/1"), "2.22"),
        (Method::POST, format!("{server}/migrations/1/action"), "2.21"),
        (Method::DELETE, format!("{server}/migrations/1"), "2.23"),
    ] {
        let body = json!({"force_complete": null});
        let answer = cloud.ask(method, version, &path, Some(&body)).await;
        answer.assert_refusal("404 itemNotFound: The resource could not be found.");
        assert_eq!(answer.header("x-openstack-nova-api-version"), version);
    }
}
