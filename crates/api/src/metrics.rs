//! What the API counts: requests by route, and whether its database is there.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request as HttpRequest};
use axum::middleware::Next;
use axum::response::Response;
use drover_common::metrics::{
    API_REQUEST_DURATION, API_REQUESTS_UNDER_WAY, DATABASE_CONNECTIONS, DEPENDENCY_UP, MIGRATIONS_ACCEPTED,
};
use drover_store::Store;
use http::Method;
use tokio_util::sync::CancellationToken;

use crate::router::{COMPUTE, EXTENSION};

/// Between two looks at the database.
const DATABASE_EVERY: Duration = Duration::from_secs(10);
/// Longer than this is as good as not at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Middleware around every route: leaves its template on the answer, for [`Request::end`].
pub(crate) async fn note_route(request: HttpRequest, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// A request that is being answered. Dropped without an end, it was given up by its caller.
pub(crate) struct Request {
    method: &'static str,
    began: Instant,
}

impl Request {
    pub(crate) fn begin(request: &mut HttpRequest) -> Self {
        API_REQUESTS_UNDER_WAY.change([], 1.0);
        request.extensions_mut().remove::<MatchedPath>(); // The mount's pattern, which axum would put in front of the route's.
        Self { method: known_method(request.method()), began: Instant::now() }
    }

    pub(crate) fn end(self, response: &Response) {
        let route = response.extensions().get::<MatchedPath>().map_or("other", |path| template(path.as_str()));
        let status = class(response.status().as_u16());
        API_REQUEST_DURATION.took([self.method, route, status], self.began.elapsed());
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        API_REQUESTS_UNDER_WAY.change([], -1.0);
    }
}

/// The route as the table of routes has it.
fn template(path: &str) -> &'static str {
    COMPUTE.iter().chain(EXTENSION).find(|operation| operation.path == path).map_or("other", |operation| operation.path)
}

fn known_method(method: &Method) -> &'static str {
    let known = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"];
    known.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}

const fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// A live migration was accepted.
pub(crate) fn accepted() {
    MIGRATIONS_ACCEPTED.increment([]);
}

/// Asks the database now and then whether it is there, until the process is told to stop.
pub(crate) async fn watch_database(store: Store, stop: CancellationToken) {
    let mut timer = tokio::time::interval(DATABASE_EVERY);
    while stop.run_until_cancelled(timer.tick()).await.is_some() {
        look_at_database(&store).await;
    }
}

/// Asks the database once whether it is there.
pub async fn look_at_database(store: &Store) {
    let answers = matches!(tokio::time::timeout(PATIENCE, store.ping()).await, Ok(Ok(())));
    DEPENDENCY_UP.set(["database"], f64::from(u8::from(answers)));
    let (idle, used) = store.connections();
    for (state, count) in [("idle", idle), ("used", used)] {
        DATABASE_CONNECTIONS.set_count([state], i64::try_from(count).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_table_of_routes_becomes_a_label() {
        assert_eq!(template("/servers/{id}/action"), "/servers/{id}/action");
        assert_eq!(template("/servers/9a0b"), "other");
        assert_eq!((known_method(&Method::PUT), known_method(&Method::TRACE)), ("PUT", "other"));
        assert_eq!((class(202), class(404), class(503)), ("2xx", "4xx", "5xx"));
    }
}
