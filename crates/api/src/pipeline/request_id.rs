//! The request's id: made here, named in the answer, in the log, in every message and on the instance action.

use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use drover_common::ids::RequestId;
use drover_common::telemetry;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::{Instrument, debug, error, field, info, info_span};
use uuid::Uuid;

use crate::error::Cause;
use crate::metrics;

const OPENSTACK_REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");
const COMPUTE_REQUEST_ID: HeaderName = HeaderName::from_static("x-compute-request-id");

/// Middleware: gives the request an id and a span, and writes its one line in the log.
pub(crate) async fn identify(mut request: Request, next: Next) -> Response {
    let id = RequestId::random();
    let span = info_span!(
        "api.request",
        request.id = %id,
        request.global_id = global_request_id(request.headers()),
        http.method = %request.method(),
        http.path = request.uri().path(),
        user.id = field::Empty,
        project.id = field::Empty,
        trace.id = field::Empty,
    );
    telemetry::join(&span, request.headers().get("traceparent").and_then(|value| value.to_str().ok()));
    request.extensions_mut().insert(id.clone());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let measure = metrics::Request::begin(&mut request);
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    measure.end(&response);
    span.in_scope(|| log(&response, reads, started));
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(OPENSTACK_REQUEST_ID, value.clone());
        response.headers_mut().insert(COMPUTE_REQUEST_ID, value);
    }
    response
}

fn log(response: &Response, reads: bool, started: Instant) {
    let status = response.status().as_u16();
    let elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    match response.extensions().get::<Cause>() {
        Some(Cause(cause)) if response.status().is_server_error() => {
            error!(http.status = status, elapsed_us, error = telemetry::chain(&**cause), "request failed");
        }
        Some(Cause(cause)) => info!(http.status = status, elapsed_us, error = telemetry::chain(&**cause), "request refused"),
        None if reads => debug!(http.status = status, elapsed_us, "request answered"),
        None => info!(http.status = status, elapsed_us, "request answered"),
    }
}

/// The id under which another service's request caused this one: for the log, and only in its proper form.
fn global_request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(OPENSTACK_REQUEST_ID)?.to_str().ok()?;
    let uuid = text.strip_prefix("req-")?;
    (uuid.len() == 36 && Uuid::try_parse(uuid).is_ok()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_global_request_id_is_taken_in_its_proper_form_only() {
        let good = "req-0a2b3c4d-0000-4000-8000-000000000001";
        assert_eq!(global_request_id(&with("x-openstack-request-id", good)).as_deref(), Some(good));
        for bad in ["req-1", "0a2b3c4d-0000-4000-8000-000000000001", "req-0a2b3c4d000040008000000000000001", ""] {
            assert_eq!(global_request_id(&with("x-openstack-request-id", bad)), None, "{bad}");
        }
    }
}
