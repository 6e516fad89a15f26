//! Whatever comes in, it is a 4xx in an envelope, and nothing is changed.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Cloud, server_id};

const VERSIONS: [&str; 6] = ["2.1", "2.25", "2.30", "2.53", "2.68", "2.100"];

/// Bodies that no endpoint can make anything of.
fn bodies() -> Vec<Vec<u8>> {
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let mut bodies: Vec<Vec<u8>> = [
        "",
        "{",
        "{bad",
        "null",
        "true",
        "0",
        "1e999",
        "\"\"",
        "[]",
        "[[]]",
        "{}",
        "{\"\": null}",
        "{\"os-migrateLive\"",
        "\u{feff}{}",
        "{\"os-migrateLive\": null, \"os-migrateLive\": null}",
        "{\"force_complete\": 0}",
        "{\"os-migrateLive\": {}, \"x\": 1}",
        &deep,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bodies.push(vec![0xff, 0xfe, b'{', b'}']);
    bodies.push(vec![0]);
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(""),
        json!(" "),
        json!("h1\u{0}"),
        json!("h1\n"),
        json!("h%s"),
        json!("h1;reboot"),
        json!("../h1"),
        json!("hö"),
        json!("a".repeat(300)),
        json!([]),
        json!(["h1"]),
        json!({}),
        json!({"h1": 1}),
    ];
    for value in &values {
        bodies.push(json!({"os-migrateLive": value}).to_string().into());
        for key in ["name", "availability_zone", "policies", "policy", "rules", "x"] {
            let mut group = json!({"name": " ", "policy": "affinity", "policies": ["affinity"]});
            group[key] = value.clone();
            bodies.push(json!({"aggregate": group}).to_string().into());
            bodies.push(json!({"server_group": group}).to_string().into());
        }
        bodies.push(json!({"metadata": {"k": value}, "x": 1}).to_string().into());
        bodies.push(json!({"meta": {"x": value}}).to_string().into());
        bodies.push(json!({"tags": [value], "x": 1}).to_string().into());
        bodies.push(json!({"add_host": {"host": value}}).to_string().into());
        bodies.push(json!({"remove_host": {"host": value}}).to_string().into());
        bodies.push(json!({"set_metadata": {"metadata": {"k": value}}}).to_string().into());
        bodies.push(json!({"os-resetState": value}).to_string().into());
        bodies.push(json!({"os-resetState": {"state": value}}).to_string().into());
        bodies.push(json!({"lock": {"locked_reason": value, "x": value}, "y": 1}).to_string().into());
        for key in ["host", "block_migration", "disk_over_commit", "force", "x\u{0}", "%"] {
            for mut arguments in [
                json!({"host": "nope", "block_migration": false, "disk_over_commit": false}),
                json!({"host": "nope", "block_migration": "auto"}),
            ] {
                arguments[key] = value.clone();
                // A host of null would be a good request.
                if arguments["host"].is_null() || arguments["host"] == "" || arguments["host"] == false {
                    arguments["block_migration"] = json!("perhaps");
                }
                bodies.push(json!({"os-migrateLive": arguments}).to_string().into());
            }
        }
        for key in ["host", "binary", "disabled_reason", "forced_down", "status"] {
            let mut body = json!({"host": "nope", "binary": "nova-compute"});
            body[key] = value.clone();
            bodies.push(body.to_string().into());
        }
    }
    bodies
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn bad_bodies_are_refused_and_change_nothing(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let before = cloud.record().await;
    let server = server_id(1);
    let paths = [
        (Method::POST, format!("/v2.1/servers/{server}/action")),
        (Method::POST, format!("/v2/servers/{server}/action")),
        (Method::POST, format!("/v2.1/servers/{server}/migrations/1/action")),
        (Method::PUT, "/v2.1/os-services/disable".to_owned()),
        (Method::POST, "/v2.1/os-aggregates".to_owned()),
        (Method::POST, format!("/v2.1/servers/{server}/metadata")),
        (Method::PUT, format!("/v2.1/servers/{server}/metadata/k")),
        (Method::PUT, format!("/v2.1/servers/{server}/tags")),
        (Method::PUT, format!("/v2.1/servers/{server}/tags/a,b")),
        (Method::PUT, "/v2.1/os-aggregates/1".to_owned()),
        (Method::POST, "/v2.1/os-aggregates/1/action".to_owned()),
        (Method::POST, "/v2.1/os-server-groups".to_owned()),
        (Method::PUT, "/v2.1/os-services/00000000-0000-0000-0000-000000000001".to_owned()),
    ];
    for body in bodies() {
        for (method, path) in &paths {
            for version in VERSIONS {
                let request = Request::builder().method(method).uri(path).header("x-openstack-nova-api-version", version);
                let answer = cloud.send(request.body(Body::from(body.clone())).unwrap()).await;
                let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
                assert!(
                    answer.status.is_client_error(),
                    "{method} {path} at {version} with {shown}: {} {}",
                    answer.status,
                    answer.text
                );
                answer.refusal();
            }
        }
    }
    assert_eq!(cloud.record().await, before);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn bad_paths_and_queries_never_break_anything(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let before = cloud.record().await;
    let texts = [
        "",
        "x",
        "-1",
        "0",
        "99999999999999999999999",
        "%00",
        "%0a",
        "%25",
        "%25s",
        "%ff",
        "%c3%28",
        "%27%3B--",
        "..%2f..",
        "%7B%7D",
        "a%20b",
        "%5B",
        "%28%3F%3D",
        "00000000-0000-0000-0000-000000000001",
        "req-1",
        "%F0%9F%90%91",
    ];
    let collections = [
        "servers",
        "servers/detail",
        "os-migrations",
        "os-services",
        "os-hypervisors",
        "os-hypervisors/detail",
        "os-hypervisors/statistics",
        "limits",
        "extensions",
        "servers/00000000-0000-0000-0000-000000000001/metadata",
        "servers/00000000-0000-0000-0000-000000000001/tags",
        "os-aggregates",
        "os-availability-zone",
        "os-availability-zone/detail",
        "os-server-groups",
        "flavors",
        "flavors/detail",
        "servers/00000000-0000-0000-0000-000000000001/os-instance-actions",
        "servers/00000000-0000-0000-0000-000000000001/migrations",
    ];
    let parameters = [
        "limit",
        "marker",
        "name",
        "status",
        "host",
        "uuid",
        "vm_state",
        "task_state",
        "project_id",
        "tenant_id",
        "all_tenants",
        "deleted",
        "changes-since",
        "changes-before",
        "instance_uuid",
        "source_compute",
        "migration_type",
        "hidden",
        "user_id",
        "binary",
        "hypervisor_hostname_pattern",
        "with_servers",
        "minRam",
        "is_public",
        "%00",
        "_",
        "metadata",
        "tags",
        "not-tags-any",
        "sort_key",
        "offset",
        "all_projects",
        "availability_zone",
        "sort_dir",
        "node",
        "hostname",
        "power_state",
        "progress",
        "created_at",
        "terminated_at",
        "locked",
        "ip",
        "%25",
    ];
    for version in ["2.1", "2.66", "2.100"] {
        for text in texts {
            for collection in collections {
                check(&cloud, version, &format!("/v2.1/{collection}/{text}")).await;
                for parameter in parameters {
                    check(&cloud, version, &format!("/v2.1/{collection}?all_tenants=1&{parameter}={text}")).await;
                }
            }
            check(&cloud, version, &format!("/v2.1/{text}")).await;
            check(&cloud, version, &format!("/drover/v1/migrations/{text}")).await;
            check(&cloud, version, &format!("/v2.1/servers/{text}/migrations/{text}")).await;
            for what in ["search", "servers", "uptime"] {
                check(&cloud, version, &format!("/v2.1/os-hypervisors/{text}/{what}")).await;
            }
        }
    }
    assert_eq!(cloud.record().await, before);
}

async fn check(cloud: &Cloud, version: &str, path: &str) {
    let answer = cloud.get(version, path).await;
    let fine = answer.status.is_success() || answer.status.is_client_error();
    assert!(fine, "{path} at {version}: {} {}", answer.status, answer.text);
    let body: Value = answer.json();
    assert!(body.is_object(), "{path} at {version}: {body}");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn bad_headers_are_refused(pool: PgPool) {
    let cloud = Cloud::new(pool);
    for (name, value, status) in [
        ("openstack-api-version", &b"compute 2.1\xff"[..], 200), // Not to be read: not there.
        ("openstack-api-version", b"compute 99999.99999", 406),
        ("openstack-api-version", b",,,", 200),
        ("x-openstack-nova-api-version", b"2.1; drop", 400),
        ("x-auth-token", b"\xff", 401),
        ("x-auth-token", b"a b", 401),
        ("content-type", b"\xff", 415),
        ("content-length", b"x", 200),
        ("accept", b"\xff", 200),
        ("x-openstack-request-id", b"req-\xff", 200),
        ("traceparent", b"00-\xff", 200),
    ] {
        let request = Request::builder().uri("/v2.1/servers").header(name, value).body(Body::empty()).unwrap();
        let answer = cloud.send(request).await;
        assert_eq!(answer.status, status, "{name}: {}", String::from_utf8_lossy(value));
    }
}
