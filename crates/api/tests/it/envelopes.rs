//! What every request meets before a handler: ids, limits, paths, content types, projects.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::fixture::{Answer, Cloud, golden, server_id};

async fn send(cloud: &Cloud, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "api:8774");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    cloud.send(request.body(body.into()).unwrap()).await
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_path_or_method_that_is_not_there_is_404_in_the_accepted_form(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let mut forms = json!({});
    for (name, accept) in [
        ("json", Some("application/json")),
        ("none", None),
        ("empty", Some("")),
        ("any", Some("*/*")),
        ("text", Some("text/plain")),
    ] {
        let headers: Vec<(&str, &str)> = accept.map(|accept| ("accept", accept)).into_iter().collect();
        let answer = send(&cloud, Method::GET, "/v2.1/nothing", &headers, Body::empty()).await;
        forms[name] = json!([answer.status.as_u16(), answer.header("content-type"), answer.text]);
        assert_eq!(answer.header("openstack-api-version"), "-");
        assert!(answer.header("x-compute-request-id").starts_with("req-"));
        assert_eq!(answer.header("x-compute-request-id"), answer.header("x-openstack-request-id"));
    }
    golden("not_found_forms", &forms);

    let json = [("accept", "application/json")];
    for (method, path) in [
        (Method::PATCH, "/v2.1/servers"),
        (Method::DELETE, "/v2.1/servers"),
        (Method::POST, "/v2.1/servers/detail"),
        (Method::GET, "/v2.1/servers/x/action"),
        (Method::OPTIONS, "/v2.1/servers"),
        (Method::GET, "/v2.1/zzz/servers"),
        (Method::GET, "/v2.1/deadbeef"),
        (Method::GET, "/v2.1//servers"),
        (Method::GET, "/v2.1/servers/"),
        (Method::POST, "/v2.1"),
        (Method::GET, "/v2/nothing"),
        (Method::GET, "/drover/v1"),
        (Method::POST, "/drover/v1/findings"),
    ] {
        let answer = send(&cloud, method.clone(), path, &json, Body::empty()).await;
        assert_eq!(answer.json()["code"], "404 Not Found", "{method} {path}");
    }
    assert_eq!(send(&cloud, Method::HEAD, "/v2.1/servers", &json, Body::empty()).await.status, 404);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_body_that_is_too_long_is_413_before_anything_else(pool: PgPool) {
    let cloud = Cloud::new(pool);
    let long = "x".repeat(114_689);
    let headers = [("accept", "application/json"), ("x-auth-token", ":bad:")];
    for path in ["/v2.1/servers/x/action", "/v2.1/nothing", "/v2/servers/x/action"] {
        let announced =
            send(&cloud, Method::POST, path, &[("content-length", "114689"), headers[0], headers[1]], long.clone()).await;
        let chunked = send(&cloud, Method::POST, path, &headers, long.clone()).await;
        for answer in [announced, chunked] {
            assert_eq!(answer.status, 413, "{path}");
            assert_eq!(
                answer.json(),
                json!({
                    "message": "Request is too large. Larger than max_request_body_size (%s).<br /><br />\n\n\n",
                    "code": "413 Request Entity Too Large",
                    "title": "Request Entity Too Large",
                })
            );
            assert!(answer.header("x-openstack-request-id").starts_with("req-"));
        }
    }
    let fits = send(&cloud, Method::POST, "/v2.1/servers/x/action", &[], "x".repeat(114_688)).await;
    fits.assert_refusal("400 badRequest: Malformed request body");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_token_that_names_nobody_is_401_before_routing(pool: PgPool) {
    let cloud = Cloud::new(pool);
    for path in ["/v2.1/servers", "/v2.1/nothing", "/v2/servers", "/drover/v1/findings"] {
        let answer = send(&cloud, Method::GET, path, &[("x-auth-token", ":")], Body::empty()).await;
        assert_eq!(answer.status, 401, "{path}");
        let expected = json!({"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}});
        assert_eq!(answer.json(), expected);
        assert_ne!(answer.header("www-authenticate"), "-");
    }
    assert_eq!(send(&cloud, Method::GET, "/v2.1/", &[("x-auth-token", ":")], Body::empty()).await.status, 200);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn only_json_is_taken(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let path = format!("/v2.1/servers/{}/action", server_id(1));
    let body = json!({"foo": null}).to_string();
    for (content_type, expected) in [
        (Some("application/xml"), "415 badMediaType: Unsupported Content-Type"),
        (Some("text/html"), "415 badMediaType: Unsupported Content-Type"),
        (Some("application/json"), "400 badRequest: There is no such action: foo"),
        (Some("application/json; charset=utf-8"), "400 badRequest: There is no such action: foo"),
        (Some("application/vnd.openstack.compute+json"), "400 badRequest: There is no such action: foo"),
        (Some("text/plain"), "400 badRequest: There is no such action: foo"),
        (None, "400 badRequest: There is no such action: foo"),
    ] {
        let headers: Vec<(&str, &str)> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        send(&cloud, Method::POST, &path, &headers, body.clone()).await.assert_refusal(expected);
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_single_key_of_an_action_is_looked_at_as_nova_does(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let path = format!("/v2.1/servers/{}/action", server_id(1));
    for (body, expected) in [
        ("{bad", "400 badRequest: Malformed request body"),
        ("", "400 badRequest: Malformed request body"),
        ("{}", "400 badRequest: Malformed request body"),
        ("[]", "400 badRequest: Malformed request body"),
        (r#"{"lock": null, "unlock": null}"#, "400 badRequest: Malformed request body"),
        (r#"["lock", "unlock"]"#, "400 badRequest: Malformed request body"),
        (r#""lock""#, "400 badRequest: Malformed request body"),
        (r#"{"foo": {}}"#, "400 badRequest: There is no such action: foo"),
        (r#"{"suspend": {}}"#, "400 badRequest: There is no such action: suspend"),
        (r#"["lock"]"#, "404 itemNotFound: The resource could not be found."),
        ("null", "404 itemNotFound: The resource could not be found."),
        ("5", "404 itemNotFound: The resource could not be found."),
        (r#""x""#, "404 itemNotFound: The resource could not be found."),
    ] {
        let answer = send(&cloud, Method::POST, &path, &[], body).await;
        assert_eq!(answer.refusal(), expected, "{body}");
        assert_eq!(answer.header("content-type"), "application/json; charset=UTF-8");
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_project_in_the_url_must_be_the_tokens(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    let own = cloud.ask_as("alice:deadbeef", Method::GET, "2.1", "/v2.1/deadbeef/servers", None).await;
    assert_eq!(own.json(), json!({"servers": []}));
    for (token, project) in [("alice:p1", "p1"), ("admin:ab", "ab")] {
        let answer = cloud.ask_as(token, Method::GET, "2.1", "/v2.1/deadbeef/servers", None).await;
        answer.assert_refusal(&format!(
            "400 badRequest: Malformed request URL: URL's project_id 'deadbeef' doesn't match Context's project_id '{project}'"
        ));
    }
    cloud.server_of(9, "h1", "deadbeef", drover_common::server::VmState::Active).await;
    let links = |path: &'static str| {
        let cloud = &cloud;
        async move {
            let answer = cloud.ask_as("admin:deadbeef", Method::GET, "2.1", path, None).await;
            answer.json()["servers"][0]["links"].clone()
        }
    };
    let href = |links: &Value, n: usize| links[n]["href"].as_str().unwrap().replace("00000000-0000-0000-0000-000000000009", "9");
    let with = links("/v2.1/deadbeef/servers").await;
    assert_eq!(href(&with, 0), "http://api:8774/v2.1/deadbeef/servers/9");
    assert_eq!(href(&with, 1), "http://api:8774/deadbeef/servers/9");
    let without = links("/v2.1/servers").await;
    assert_eq!(href(&without, 0), "http://api:8774/v2.1/servers/9");
    let in_query = links("/v2.1/servers?project_id=deadbeef").await;
    assert_eq!(href(&in_query, 1), "http://api:8774/deadbeef/servers/9");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn health_needs_no_token_and_names_what_is_away(pool: PgPool) {
    let cloud = Cloud::new(pool.clone());
    let well = send(&cloud, Method::GET, "/healthz", &[], Body::empty()).await;
    assert_eq!((well.status.as_u16(), well.json()), (200, json!({"status": "ok", "database": "ok", "broker": "ok"})));
    cloud.close_own_queue();
    pool.close().await;
    let ill = send(&cloud, Method::GET, "/healthz", &[], Body::empty()).await;
    assert_eq!(
        (ill.status.as_u16(), ill.json()),
        (503, json!({"status": "unavailable", "database": "unreachable", "broker": "unreachable"}))
    );
    let answer = send(&cloud, Method::GET, "/v2.1/servers", &[], Body::empty()).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["serviceUnavailable"]["code"], 503);
}
