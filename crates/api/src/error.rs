//! What can go wrong with a request, and what the caller is told: the one place where an error becomes a status and a body.
//!
//! The texts are Nova's and part of the API. What a caller must not see (a database's words, a panic) is the `source` of an error:
//! it goes to the log, once, inside the request's span ([`crate::pipeline::request_id`]), never into a body.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use drover_common::fault::Fault;
use drover_store::StoreError;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::microversion::{MAX, MIN};
use crate::policy::Rule;

/// Why a request is not answered with what it asked for. The text of a variant is what the caller reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request makes no sense, or asks for what cannot be.
    #[error("{0}")]
    BadRequest(String),
    /// The prechecks of a migration said no, and somebody waits for their word.
    #[error("{0}")]
    Refused(Fault),
    /// The base API's catch-all: the cause is for the log only.
    #[error("{message}")]
    LegacyFailure {
        /// What the caller reads.
        message: String,
        /// What happened.
        #[source]
        cause: Box<ApiError>,
    },
    /// No token, or one that is none.
    #[error("The request you have made requires authentication.")]
    Unauthorized {
        /// The value of `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// The policy says no.
    #[error("Policy doesn't allow {0} to be performed.")]
    Forbidden(Rule),
    /// Something else than a rule of the policy says no.
    #[error("{0}")]
    ForbiddenBecause(&'static str),
    /// What the request is about does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The resource or action does not exist in this microversion.
    #[error("The resource could not be found.")]
    NotInThisVersion,
    /// A microversion that is not served.
    #[error("Version {version} is not supported by the API. Minimum is {MIN} and maximum is {MAX}.")]
    NotAcceptable {
        /// As it was asked for.
        version: String,
    },
    /// What the request is about is in a state in which that cannot be done.
    #[error("{0}")]
    Conflict(String),
    /// The body is not JSON by its own word.
    #[error("Unsupported Content-Type")]
    UnsupportedMediaType,
    /// Nova has it, we do not (yet).
    #[error("{0}")]
    NotImplemented(Fault),
    /// Nova has it for some hypervisors, and not for ours.
    #[error("The requested functionality is not supported.")]
    NotSupported,
    /// A migration failed for a reason that is no precheck, while somebody waited for its prechecks.
    #[error("{0}")]
    Failed(Fault),
    /// The database failed.
    #[error("Unexpected API Error. The log of drover-api has the cause under this request's id.")]
    Storage(#[from] StoreError),
    /// Something is away that will be back.
    #[error("{0}")]
    Unavailable(String),
    /// A defect.
    #[error("The server has either erred or is incapable of performing the requested operation.")]
    Panicked(#[source] Panic),
}

/// What a panic said.
#[derive(Debug, thiserror::Error)]
#[error("panic: {0}")]
pub(crate) struct Panic(pub(crate) String);

impl ApiError {
    /// 400 with this text.
    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self::BadRequest(text.into())
    }

    /// The body is not JSON, or not the JSON that anything could be made of.
    pub(crate) fn malformed_body() -> Self {
        Self::bad_request("Malformed request body")
    }

    /// No such server, or none that this caller may see.
    pub(crate) fn server_not_found(id: &str) -> Self {
        Self::NotFound(format!("Instance {id} could not be found."))
    }

    /// The server is locked and the caller no admin.
    pub(crate) fn locked(server: impl std::fmt::Display) -> Self {
        Self::Conflict(format!("Instance {server} is locked"))
    }

    /// The status of the answer. No `_` arm: a new variant must choose its status to compile.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Refused(_) | Self::LegacyFailure { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::ForbiddenBecause(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::NotInThisVersion => StatusCode::NOT_FOUND,
            Self::NotAcceptable { .. } => StatusCode::NOT_ACCEPTABLE,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotImplemented(_) | Self::NotSupported => StatusCode::NOT_IMPLEMENTED,
            Self::Storage(error) if error.is_away() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) | Self::Storage(_) | Self::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn body(&self) -> serde_json::Value {
        let code = self.status().as_u16();
        let message = self.to_string();
        if matches!(self, Self::Unauthorized { .. }) {
            // Not Nova's words but those of the middleware in front of it.
            return json!({"error": {"code": code, "title": "Unauthorized", "message": message}});
        }
        json!({envelope(self.status()): {"code": code, "message": message}})
    }
}

/// Nova's name for a status (`nova/api/openstack/wsgi.py`, `Fault`).
const fn envelope(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "badRequest",
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "itemNotFound",
        StatusCode::METHOD_NOT_ALLOWED => "badMethod",
        StatusCode::CONFLICT => "conflictingRequest",
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => "overLimit",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "badMediaType",
        StatusCode::NOT_IMPLEMENTED => "notImplemented",
        StatusCode::SERVICE_UNAVAILABLE => "serviceUnavailable",
        _ => "computeFault",
    }
}

/// The error behind an answer, for the log.
#[derive(Clone)]
pub(crate) struct Cause(pub(crate) Arc<ApiError>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
        if let Self::Unauthorized { challenge } = &self {
            headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
        }
        response.extensions_mut().insert(Cause(Arc::new(self)));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_novas_name() {
        for (status, name) in [
            (400, "badRequest"),
            (401, "unauthorized"),
            (403, "forbidden"),
            (404, "itemNotFound"),
            (405, "badMethod"),
            (406, "computeFault"),
            (409, "conflictingRequest"),
            (410, "computeFault"),
            (413, "overLimit"),
            (415, "badMediaType"),
            (429, "overLimit"),
            (500, "computeFault"),
            (501, "notImplemented"),
            (503, "serviceUnavailable"),
        ] {
            assert_eq!(envelope(StatusCode::from_u16(status).unwrap()), name, "{status}");
        }
    }

    #[test]
    fn what_a_panic_said_is_not_told() {
        let body = ApiError::Panicked(Panic("index out of bounds".to_owned())).body().to_string();
        assert!(!body.contains("index"), "{body}");
    }
}
