//! The bound on bodies (`[api] max_request_body_size`). The body is read as a whole before anything else looks at the request.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use http_body_util::LengthLimitError;

use super::webob;
use crate::error::ApiError;
use crate::state::AppState;

/// Nova's words; the `%s` is a slip of `oslo.middleware` that clients know.
const TOO_LARGE: &str = "Request is too large. Larger than max_request_body_size (%s).";

/// Middleware: reads the body, or says 413.
pub(crate) async fn read_body(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let limit = app.config().max_request_body_size;
    let (parts, body) = request.into_parts();
    let too_large = || webob::answer(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE, &parts.headers);
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return too_large();
    }
    match axum::body::to_bytes(body, limit).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(error) if std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>) => too_large(),
        Err(_) => ApiError::malformed_body().into_response(), // The client went away in the middle; nobody reads this.
    }
}
