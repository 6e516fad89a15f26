//! The way to the REST API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
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
    /// The file has no certificate.
    #[error("{path} is no file of certificates in PEM (--os-cacert or OS_CACERT): {why}", path = .path.display())]
    BadCertificates { path: PathBuf, why: String },
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
    /// The header of a user with a password.
    authorization: Option<String>,
}

impl Client {
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, ApiError> {
        let trimmed = endpoint.url.trim_end_matches('/');
        // OpenStack's endpoints usually have the version in them.
        let base = trimmed.strip_suffix("/v2.1").unwrap_or(trimmed);
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(ApiError::BadEndpoint(endpoint.url.clone()));
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .timeout_connect(Some(PATIENCE_TO_CONNECT));
        let config = match &endpoint.cacert {
            Some(path) => config.tls_config(TlsConfig::builder().root_certs(roots(path)?).build()),
            None => config,
        };
        let basic =
            |(user, password): (&String, &String)| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        Ok(Self {
            agent: config.build().into(),
            endpoint: base.to_owned(),
            token: endpoint.token.clone(),
            authorization: endpoint.username.as_ref().zip(endpoint.password.as_ref()).map(basic),
        })
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

    /// Replaces what is at `path`; the value under `key` in the answer.
    pub(crate) fn put(&self, path: &str, body: &Value, key: &str) -> Result<Value, ApiError> {
        let url = format!("{}{path}", self.endpoint);
        let request = self.with_headers(self.agent.put(&url)).content_type("application/json");
        let answer = self.answer(request.send(body.to_string()))?;
        let wanted = answer.and_then(|mut document| document.get_mut(key).map(Value::take));
        wanted.ok_or_else(|| ApiError::NotUnderstood { url, endpoint: self.endpoint.clone() })
    }

    /// Removes what is at `path`.
    pub(crate) fn delete(&self, path: &str) -> Result<(), ApiError> {
        self.answer(self.with_headers(self.agent.delete(format!("{}{path}", self.endpoint))).call()).map(drop)
    }

    fn with_headers<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        let request = request.header("OpenStack-API-Version", MICROVERSION).header("Accept", "application/json");
        match (&self.token, &self.authorization) {
            (Some(token), _) => request.header("X-Auth-Token", token),
            (None, Some(authorization)) => request.header("Authorization", authorization),
            (None, None) => request,
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

/// Who may have signed the API's certificate.
fn roots(path: &Path) -> Result<RootCerts, ApiError> {
    let bad = |why: &dyn std::fmt::Display| ApiError::BadCertificates { path: path.to_owned(), why: why.to_string() };
    let text = std::fs::read(path).map_err(|error| bad(&error))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| bad(&error))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(bad(&"there is none in it"));
    }
    Ok(RootCerts::new_with_certs(&certificates))
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

    fn at(url: &str) -> Endpoint {
        Endpoint { url: url.to_owned(), token: None, username: None, password: None, cacert: None }
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let endpoint = Endpoint { cacert: Some("/dev/null".into()), ..at("https://api:8774") };
        let said = Client::new(&endpoint).map(drop).unwrap_err().to_string();
        assert_eq!(said, "/dev/null is no file of certificates in PEM (--os-cacert or OS_CACERT): there is none in it");
    }

    #[test]
    fn a_user_and_a_password_are_shown_as_http_basic() {
        let endpoint = Endpoint { username: Some("admin".into()), password: Some("secret".into()), ..at("https://api") };
        assert_eq!(Client::new(&endpoint).unwrap().authorization.as_deref(), Some("Basic YWRtaW46c2VjcmV0"));
    }

    #[test]
    fn an_endpoint_may_have_the_version_in_it() {
        let client = |url: &str| Client::new(&at(url));
        for url in ["http://api:8774", "http://api:8774/", "http://api:8774/v2.1", "http://api:8774/v2.1/"] {
            assert_eq!(client(url).unwrap().endpoint, "http://api:8774", "{url}");
        }
        assert!(client("api:8774").is_err());
    }
}
