//! The OpenAPI document, and that it and the router say the same.

use http::{Method, Request};
use serde_json::Value;
use sqlx::PgPool;

use axum::body::Body;

use crate::fixture::{Cloud, golden};

async fn document(cloud: &Cloud) -> Value {
    let answer = cloud.send(Request::builder().uri("/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 200, "no token is needed");
    answer.json()
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_document_is_this(pool: PgPool) {
    golden("openapi", &document(&Cloud::new(pool)).await);
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_router_has_what_the_document_has_and_nothing_else(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    for (path, item) in document(&cloud).await["paths"].as_object().unwrap() {
        let concrete: Vec<&str> = path.split('/').map(|segment| if segment.starts_with('{') { "x" } else { segment }).collect();
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let described = &item[method.as_str().to_lowercase()];
            let version = described["x-openstack"]["max-ver"].as_str().unwrap_or("2.100");
            let answer = cloud.ask(method.clone(), version, &concrete.join("/"), None).await;
            // What no route has is answered in front of the API, in another form.
            let served = answer.text.is_empty() || answer.json().get("title").is_none();
            assert_eq!(served, described.is_object(), "{method} {path}: {} {}", answer.status, answer.text);
            if served {
                let status = answer.status.as_str();
                assert!(described["responses"].get(status).is_some(), "{method} {path}: {status} is not described");
            }
        }
    }
}
