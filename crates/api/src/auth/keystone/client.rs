//! Asking Keystone: our own log-in, and with it what a caller's token is worth.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use drover_common::config::{ConfigError, KeystoneSection};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::token::{self, Valid};

const SUBJECT_TOKEN: &str = "x-subject-token";
/// The longest answer that is read: a token's roles, without the catalogue.
const ANSWER_MAX: usize = 1 << 20;

/// A client of one Keystone.
pub(super) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    log_in: Uri,
    validate: Uri,
    /// The body of our log-in. Has our password in it.
    credentials: Bytes,
    timeout: Duration,
    /// Our own token, until Keystone says that it is none any more.
    own_token: Mutex<Option<HeaderValue>>,
}

/// Why there is no word on a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeystoneError {
    #[error("Keystone did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("Keystone cannot be reached")]
    Unreachable(#[from] legacy::Error),
    #[error("Keystone's answer broke off, or is too long")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("Keystone's answer is not about a token")]
    Malformed(#[from] serde_json::Error),
    #[error("Keystone refuses our own log-in with {0} ([keystone_authtoken] username, password, project_name)")]
    LogIn(StatusCode),
    #[error("Keystone does not let us ask about tokens: {0} (the user of [keystone_authtoken] needs the role service)")]
    Validate(StatusCode),
}

impl Client {
    /// Checks the options.
    pub(super) fn new(config: &KeystoneSection) -> Result<Self, ConfigError> {
        let url = required("auth_url", config.auth_url.as_deref())?;
        let bad_url = || ConfigError::not_allowed("[keystone_authtoken] auth_url", url, "the http or https URL of a Keystone");
        let base = url.trim_end_matches('/').trim_end_matches("/v3");
        let at = |path: &str| format!("{base}{path}").parse::<Uri>().map_err(|_| bad_url());
        let (log_in, validate) = (at("/v3/auth/tokens")?, at("/v3/auth/tokens?nocatalog")?);
        let encrypted = match log_in.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad_url()),
        };
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(encrypted, config.cafile.as_deref())?)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(https),
            log_in,
            validate,
            credentials: credentials(config)?,
            timeout: Duration::from_secs(config.http_connect_timeout),
            own_token: Mutex::default(),
        })
    }

    /// What a caller's token is worth; `None` if it is none.
    pub(super) async fn validate(&self, token: &HeaderValue) -> Result<Option<Valid>, KeystoneError> {
        timeout(self.timeout, self.ask_about(token)).await.map_err(|_| KeystoneError::TimedOut(self.timeout))?
    }

    async fn ask_about(&self, token: &HeaderValue) -> Result<Option<Valid>, KeystoneError> {
        let mut own = self.own_token(None).await?;
        let mut renewed = false;
        loop {
            let request = Request::builder()
                .method(Method::GET)
                .uri(self.validate.clone())
                .header("x-auth-token", own.clone())
                .header(SUBJECT_TOKEN, sensitive(token.clone()));
            let (status, headers, body) = self.send(request, Bytes::new()).await?;
            match status {
                StatusCode::OK => return Ok(token::read(&headers, &body)?),
                StatusCode::NOT_FOUND => return Ok(None),
                // It is our own token that is no good any more: it expired, or somebody changed our password.
                StatusCode::UNAUTHORIZED if !renewed => {
                    own = self.own_token(Some(&own)).await?;
                    renewed = true;
                }
                status => return Err(KeystoneError::Validate(status)),
            }
        }
    }

    /// Our own token: another one than `refused`.
    async fn own_token(&self, refused: Option<&HeaderValue>) -> Result<HeaderValue, KeystoneError> {
        // Held for the length of a log-in: the others want its outcome.
        let mut own = self.own_token.lock().await;
        if let Some(token) = own.as_ref().filter(|token| Some(*token) != refused) {
            return Ok(token.clone());
        }
        *own = None;
        let request =
            Request::builder().method(Method::POST).uri(self.log_in.clone()).header(header::CONTENT_TYPE, "application/json");
        let (status, headers, _) = self.send(request, self.credentials.clone()).await?;
        let token = headers.get(SUBJECT_TOKEN).filter(|_| status == StatusCode::CREATED).ok_or(KeystoneError::LogIn(status))?;
        tracing::debug!("logged in at Keystone");
        Ok(own.insert(sensitive(token.clone())).clone())
    }

    async fn send(&self, request: http::request::Builder, body: Bytes) -> Result<(StatusCode, HeaderMap, Bytes), KeystoneError> {
        let request = request
            .header(header::ACCEPT, "application/json")
            .body(Full::new(body))
            .map_err(|error| KeystoneError::Answer(Box::new(error)))?; // All parts were checked when they were made.
        let (parts, body) = self.http.request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(KeystoneError::Answer)?;
        Ok((parts.status, parts.headers, body.to_bytes()))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("log_in", &self.log_in).finish_non_exhaustive()
    }
}

fn required<'a>(option: &str, value: Option<&'a str>) -> Result<&'a str, ConfigError> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        ConfigError::not_allowed(&format!("[keystone_authtoken] {option}"), "", "auth_strategy = \"keystone\" needs it")
    })
}

/// Kept out of logs of HTTP libraries, and out of compression tables.
fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// The body of our log-in.
fn credentials(config: &KeystoneSection) -> Result<Bytes, ConfigError> {
    let password = required("password", config.password.as_ref().map(drover_common::config::Secret::expose))?;
    let user = json!({
        "name": required("username", config.username.as_deref())?,
        "domain": {"name": config.user_domain_name},
        "password": password,
    });
    let project = json!({
        "name": required("project_name", config.project_name.as_deref())?,
        "domain": {"name": config.project_domain_name},
    });
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    Ok(Bytes::from(json!({"auth": {"identity": identity, "scope": {"project": project}}}).to_string()))
}

/// Whom to believe that they are Keystone.
fn tls(encrypted: bool, cafile: Option<&Path>) -> Result<ClientConfig, ConfigError> {
    let refused = |allowed: String| ConfigError::not_allowed("[keystone_authtoken] cafile", cafile, allowed);
    let mut roots = RootCertStore::empty();
    match cafile {
        _ if !encrypted => {}
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            roots.add_parsable_certificates(certificates.map_err(|e| refused(format!("a file of certificates in PEM: {e}")))?);
        }
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    if encrypted && roots.is_empty() {
        return Err(refused("there is no certificate to check Keystone's against".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(format!("TLS cannot be set up: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
