//! What Prometheus is told of requests, and the trace that they belong to.

use axum::body::Body;
use drover_common::config::TracingSection;
use drover_common::metrics::{self, API};
use drover_common::telemetry::Traces;
use http::{Method, Request};
use serde_json::json;
use sqlx::PgPool;
use tracing_subscriber::layer::SubscriberExt;

use crate::fixture::{Cloud, server_id};

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn the_api_tells_all_that_it_declares_and_requests_by_route(pool: PgPool) {
    let cloud = Cloud::with_a_server(pool).await;
    drover_api::look_at_database(&cloud.store).await;
    let refused = cloud.get("2.1", "/v2.1/servers/9a0b0000-0000-4000-8000-00000000beef").await;
    assert_eq!(refused.status, 404);
    cloud.get("2.1", "/drover/v1/findings").await;
    cloud.get("2.1", "/v2.1/nothing/9a0b0000-0000-4000-8000-00000000beef").await;
    cloud.live_migrate(server_id(1), Some("h2")).await.assert_empty(202);
    metrics::BUILD_INFO.set(["0"], 1.0); // As the start of the process does.
    let text = metrics::expose(API);
    for declared in metrics::of(API) {
        assert!(text.contains(&format!("\n{}", declared.metric().exposed())), "{}: {text}", declared.metric().name);
    }
    for line in [
        "method=\"GET\",route=\"/servers/{id}\",status=\"4xx\"",
        "method=\"GET\",route=\"/drover/v1/findings\",status=\"2xx\"",
        "method=\"GET\",route=\"other\",status=\"4xx\"",
        "method=\"POST\",route=\"/servers/{id}/action\",status=\"2xx\"",
    ] {
        assert!(text.contains(&format!("drover_api_request_duration_seconds_count{{{line}}}")), "{line}: {text}");
    }
    assert!(!text.contains("beef"), "no path as it was asked for");
    assert!(text.contains("drover_dependency_up{dependency=\"database\"} 1.0"), "{text}");
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn a_request_goes_on_with_its_callers_trace_in_its_message_and_on_the_row(pool: PgPool) {
    let traces = Traces::start(&TracingSection { otlp_endpoint: None, sampling_ratio: 1.0 }, "test").unwrap();
    // For the whole process: with one for this thread only, call sites that other tests reach first would stay silent.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(traces.layer())).expect("the only one");
    let cloud = Cloud::with_a_server(pool).await;
    let (_bus, mut inbox) = cloud.conductor();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/v2.1/servers/{}/action", server_id(1)))
        .header("host", "api:8774")
        .header("openstack-api-version", "compute 2.68")
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    let body = json!({"os-migrateLive": {"host": "h2", "block_migration": "auto"}});
    cloud.send(request.body(Body::from(body.to_string())).unwrap()).await.assert_empty(202);
    let message = inbox.recv().await.unwrap().decode::<serde_json::Value>().unwrap();
    let row = cloud.open_migration(server_id(1)).await;
    for traceparent in [message.traceparent, row.traceparent] {
        let traceparent = traceparent.unwrap();
        assert!(traceparent.starts_with(&format!("00-{trace}-")) && traceparent.ends_with("-01"), "{traceparent}");
        assert!(!traceparent.contains("b7ad6b7169203331"), "a span of our own");
    }
}
