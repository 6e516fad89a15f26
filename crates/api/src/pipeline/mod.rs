//! What every request goes through before it reaches a handler, outermost first (Nova's order in `api-paste.ini`, so that a
//! body that is too long is 413 even without a token, and a missing token 401 even for a path that does not exist):
//!
//! 1. [`request_id`]: the request's id, its span, its line in the log;
//! 2. [`catch_panic`]: a defect costs one request, not the process;
//! 3. [`body_limit`]: the body is read here, once, with a bound;
//! 4. [`crate::auth`]: the caller;
//! 5. [`mount`]: `/v2.1`, `/v2` and the project are taken off the path, so that the routes stand in one table;
//! 6. the router, and around each route [`crate::microversion::negotiate`].

pub(crate) mod body_limit;
pub(crate) mod mount;
pub(crate) mod request_id;
pub(crate) mod webob;

use std::any::Any;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;

use crate::auth;
use crate::error::{ApiError, Panic};
use crate::state::AppState;

/// Puts the whole pipeline around `routes`.
pub(crate) fn around(routes: Router, app: &AppState) -> Router {
    // Each layer is a router that hands everything on: a middleware must see the path before it is matched.
    let inner = Router::new().fallback_service(routes).layer(from_fn(mount::take_off));
    Router::new()
        .fallback_service(inner)
        .layer(from_fn_with_state(app.clone(), auth::authenticate))
        .layer(from_fn_with_state(app.clone(), body_limit::read_body))
        .layer(CatchPanicLayer::custom(catch_panic))
        .layer(from_fn(request_id::identify))
}

fn catch_panic(panic: Box<dyn Any + Send>) -> Response {
    let said = match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| "no words".to_owned(), |text| (*text).to_owned()),
    };
    ApiError::Panicked(Panic(said)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use drover_common::bus::Address;
    use drover_common::bus::memory::MemoryBroker;
    use drover_common::config;
    use drover_common::ids::Incarnation;
    use drover_common::lifecycle::Life;
    use drover_store::Store;
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_costs_one_request_and_tells_nothing() {
        let config = config::from_toml("").unwrap();
        let (bus, _inbox) = MemoryBroker::default().join(&Address::ApiProcess(Incarnation::random()));
        let app = AppState::new(&config, Store::open(&config.database).unwrap(), bus, Life::default()).unwrap();
        let routes = Router::new().route("/", get(async || -> &'static str { panic!("the inner workings") }));
        let service = around(routes, &app);
        let request = Request::builder().uri("/v2.1").body(Body::empty()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key("x-openstack-request-id"));
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        assert_eq!(
            &body[..],
            br#"{"computeFault":{"code":500,"message":"The server has either erred or is incapable of performing the requested operation."}}"#
        );
    }
}
