//! Getting things out of a request, with Nova's refusals instead of axum's.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use http::request::Parts;
use http::{HeaderMap, header};
use serde_json::Value;

use crate::error::ApiError;
use crate::state::AppState;
use crate::validation::python::Python;

/// Refuses a body that says it is something else than JSON. No word, or `text/plain` (which old clients say without meaning it),
/// is taken as JSON.
pub(crate) fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let value = value.to_str().map_err(|_| ApiError::UnsupportedMediaType)?;
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "" | "text/plain" | "application/json" | "application/vnd.openstack.compute+json" => Ok(()),
        _ => Err(ApiError::UnsupportedMediaType),
    }
}

/// The query's parameters in their order. A NUL is refused: no stored text can hold one.
pub(crate) fn query(text: &str) -> Result<Vec<(String, String)>, ApiError> {
    let parameters: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    match parameters.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
        Some((name, _)) => Err(ApiError::bad_request(format!(
            "Invalid input for query parameters {}. NUL characters are not allowed.",
            name.replace('\0', "")
        ))),
        None => Ok(parameters),
    }
}

/// The variable segments of the path, in their order: `Path([server, migration])`.
#[derive(Debug, Clone)]
pub(crate) struct Path<const N: usize>(pub(crate) [String; N]);

impl<const N: usize> FromRequestParts<AppState> for Path<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        // What is no UTF-8 names nothing.
        let segments = RawPathParams::from_request_parts(parts, app).await.map_err(|_| ApiError::NotInThisVersion)?;
        let mut segments: Vec<String> = segments.iter().map(|(_, value)| value.to_owned()).collect();
        // In front of the route's own there is what the mount matched.
        let own = segments.split_off(segments.len().saturating_sub(N));
        own.try_into().map(Self).map_err(|_| ApiError::NotInThisVersion)
    }
}

/// A body: JSON, or nothing (which counts as `null`, as in Nova).
#[derive(Debug, Clone)]
pub(crate) struct Body {
    /// What it says.
    pub(crate) value: Value,
    /// The bytes, for what [`Value`] does not keep: the order of keys.
    bytes: Bytes,
}

impl Body {
    /// Reads it.
    fn read(bytes: Bytes) -> Result<Self, ApiError> {
        let value =
            if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).map_err(|_| ApiError::malformed_body())? };
        if has_nul(&value) {
            return Err(ApiError::malformed_body()); // No stored text can hold one.
        }
        Ok(Self { value, bytes })
    }

    /// A body of a test.
    #[cfg(test)]
    pub(crate) fn for_test(bytes: Bytes) -> Self {
        Self::read(bytes).unwrap()
    }

    /// What would have been a body, for schemas that a path is held against.
    pub(crate) fn of(value: Value) -> Self {
        let bytes = value.to_string().into();
        Self { value, bytes }
    }

    /// Whether there was none.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The body as Python would show it.
    pub(crate) fn as_python(&self) -> Python {
        serde_json::from_slice(&self.bytes).unwrap_or(Python::None)
    }
}

impl FromRequest<AppState> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ApiError> {
        // The pipeline has read it with a bound already: this cannot fail.
        let bytes = Bytes::from_request(request, app).await.map_err(|_| ApiError::malformed_body())?;
        Self::read(bytes)
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(entries) => entries.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_json() {
        for (content_type, taken) in [
            (None, true),
            (Some("application/json"), true),
            (Some("application/JSON; charset=UTF-8"), true),
            (Some("application/vnd.openstack.compute+json"), true),
            (Some("text/plain"), true),
            (Some("text/html"), false),
            (Some("application/xml"), false),
            (Some("application/x-www-form-urlencoded"), false),
        ] {
            let headers = content_type.map(|c| (header::CONTENT_TYPE, c.parse().unwrap())).into_iter().collect();
            assert_eq!(check_content_type(&headers).is_ok(), taken, "{content_type:?}");
        }
    }

    #[test]
    fn nul_characters_are_refused_wherever_they_hide() {
        assert!(query("name=a%00b").is_err());
        assert!(query("na%00me=a").is_err());
        assert!(query("name=%25%ff").is_ok());
        for body in [r#"{"a": "\u0000"}"#, r#"{"\u0000": 1}"#, r#"["x", {"a": ["\u0000"]}]"#] {
            assert!(Body::read(Bytes::from_static(body.as_bytes())).is_err(), "{body}");
        }
    }
}
