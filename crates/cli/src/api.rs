//! The way to the REST API.

use std::time::Duration;

use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::{Body, RequestBuilder};

use crate::Endpoint;

/// Long enough for a busy API, short enough for somebody who waits.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_TO_CONNECT: Duration = Duration::from_secs(5);
/// The newest microversion that this program was written for.
const MICROVERSION: &str = "compute 2.80";

/// Why the API gave no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The endpoint is none.
    #[error("{0:?} is no endpoint: http://HOST:PORT or https://HOST:PORT")]
    BadEndpoint(String),
    /// Nobody there, or nobody who speaks HTTP.
    #[error("cannot reach the API at {endpoint} (give another one with --os-endpoint or OS_ENDPOINT)")]
    Unreachable {
        endpoint: String,
        #[source]
        source: Box<ureq::Error>,
    },
    /// The API said no.
    #[error("{message} ({status})")]
    Refused { status: StatusCode, message: String },
    /// Something answered that is not Drover's API.
    #[error("the answer to {url} is not what Drover's API says: is {endpoint} the right endpoint?")]
    NotUnderstood { url: String, endpoint: String },
}

/// A client of one API.
pub(crate) struct Client {
    agent: ureq::Agent,
    endpoint: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, ApiError> {
        let trimmed = endpoint.os_endpoint.trim_end_matches('/');
        // OpenStack's endpoints usually have the version in them.
        let base = trimmed.strip_suffix("/v2.1").unwrap_or(trimmed);
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(ApiError::BadEndpoint(endpoint.os_endpoint.clone()));
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .timeout_connect(Some(PATIENCE_TO_CONNECT));
        Ok(Self { agent: config.build().into(), endpoint: base.to_owned(), token: endpoint.os_token.clone() })
    }

    /// The value under `key` in what the API says at `path`.
    pub(crate) fn get(&self, path: &str, query: &[(&str, &str)], key: &str) -> Result<Value, ApiError> {
        let url = format!("{}{path}", self.endpoint);
        let answer = self.answer(self.with_headers(self.agent.get(&url).query_pairs(query.iter().copied())).call())?;
        let wanted = answer.and_then(|mut document| document.get_mut(key).map(Value::take));
        wanted.ok_or_else(|| ApiError::NotUnderstood { url, endpoint: self.endpoint.clone() })
    }

    /// Sends a body to `path`; whatever the API answers to it is not looked at.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<(), ApiError> {
        let request = self.with_headers(self.agent.post(format!("{}{path}", self.endpoint)));
        self.answer(request.content_type("application/json").send(body.to_string())).map(drop)
    }

    fn with_headers<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        let request = request.header("OpenStack-API-Version", MICROVERSION).header("Accept", "application/json");
        match &self.token {
            Some(token) => request.header("X-Auth-Token", token),
            None => request,
        }
    }

    /// The document of an answer that is no refusal.
    fn answer(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Option<Value>, ApiError> {
        let unreachable = |source| ApiError::Unreachable { endpoint: self.endpoint.clone(), source: Box::new(source) };
        let mut response = answer.map_err(unreachable)?;
        let status = response.status();
        let text = response.body_mut().read_to_string().map_err(unreachable)?;
        let document: Option<Value> = serde_json::from_str(&text).ok();
        if status.is_success() {
            return Ok(document);
        }
        let message = document.as_ref().and_then(message).unwrap_or("the API gave no reason").to_owned();
        Err(ApiError::Refused { status, message })
    }
}

/// The text in one of Nova's envelopes, or in that of the layers around it.
fn message(document: &Value) -> Option<&str> {
    let direct = document.get("message").and_then(Value::as_str);
    direct.or_else(|| document.as_object()?.values().find_map(|fault| fault.get("message")?.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_text_is_found_in_every_envelope() {
        for document in [
            json!({"itemNotFound": {"code": 404, "message": "no"}}),
            json!({"error": {"code": 401, "title": "Unauthorized", "message": "no"}}),
            json!({"message": "no", "code": "404 Not Found", "title": "Not Found"}),
        ] {
            assert_eq!(message(&document), Some("no"), "{document}");
        }
        assert_eq!(message(&json!([])), None);
    }

    #[test]
    fn an_endpoint_may_have_the_version_in_it() {
        let client = |url: &str| Client::new(&Endpoint { os_endpoint: url.to_owned(), os_token: None });
        for url in ["http://api:8774", "http://api:8774/", "http://api:8774/v2.1", "http://api:8774/v2.1/"] {
            assert_eq!(client(url).unwrap().endpoint, "http://api:8774", "{url}");
        }
        assert!(client("api:8774").is_err());
    }
}
