//! `keystone`: the caller's token, about which Keystone is asked.
//!
//! - Its word is taken for `token_cache_time`, at most until the token expires: a revoked token works that much longer at most.
//!   Only good tokens are remembered, so a bad one cannot push out a good one.
//! - While Keystone does not answer, callers that are not remembered get 503. Nobody is let in on a guess.

mod client;
mod token;

use std::sync::Arc;
use std::time::Duration;

use drover_common::config::{ConfigError, KeystoneSection};
use drover_common::telemetry;
use http::{HeaderMap, HeaderValue};

use super::gate::Gate;
use super::verified::{Fingerprint, Verified};
use crate::context::Caller;
use crate::error::ApiError;
use client::Client;
use token::Valid;

/// Questions to Keystone under way at a time.
const QUESTIONS_MAX: usize = 32;
/// Callers who wait to have theirs asked.
const WAITING_MAX: usize = 512;

/// The strategy.
#[derive(Debug)]
pub(crate) struct Keystone {
    client: Client,
    challenge: HeaderValue,
    token_cache_time: Duration,
    verified: Verified<Arc<Caller>>,
    gate: Gate,
}

impl Keystone {
    /// Checks the options. Keystone need not be there yet.
    pub(super) fn new(config: &KeystoneSection) -> Result<Self, ConfigError> {
        let client = Client::new(config)?;
        let uri = config.www_authenticate_uri.as_deref().or(config.auth_url.as_deref()).unwrap_or_default();
        let challenge = HeaderValue::from_str(&format!("Keystone uri=\"{uri}\"")).map_err(|_| {
            ConfigError::not_allowed("[keystone_authtoken] www_authenticate_uri", uri, "a URL of printable characters")
        })?;
        Ok(Self {
            client,
            challenge,
            token_cache_time: Duration::from_secs(config.token_cache_time),
            verified: Verified::new(),
            gate: Gate::new(QUESTIONS_MAX, WAITING_MAX),
        })
    }

    /// Who Keystone says is asking.
    pub(super) async fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let refused = || ApiError::Unauthorized { challenge: self.challenge.clone() };
        let token = headers.get("x-auth-token").filter(|token| !token.is_empty()).ok_or_else(refused)?;
        let fingerprint = self.verified.fingerprint(token.as_bytes());
        let caller = match self.verified.get(&fingerprint) {
            Some(caller) => caller,
            None => self.ask(token, fingerprint).await?.ok_or_else(refused)?,
        };
        if caller.project_id.is_empty() {
            return Err(ApiError::ForbiddenBecause("The token is not scoped to a project."));
        }
        Ok(Caller::clone(&caller))
    }

    /// Whose token it is by Keystone's word, which is remembered; `None` if it is none.
    async fn ask(&self, token: &HeaderValue, fingerprint: Fingerprint) -> Result<Option<Arc<Caller>>, ApiError> {
        let _inside = self.gate.enter().await?;
        let valid = self.client.validate(token).await.map_err(|error| {
            tracing::error!(error = telemetry::chain(&error), "no word from Keystone on a token");
            ApiError::Unavailable("Keystone cannot be asked about the token now.".to_owned())
        })?;
        Ok(valid.map(|Valid { caller, lifetime }| {
            let caller = Arc::new(caller);
            self.verified.insert(fingerprint, caller.clone(), lifetime.min(self.token_cache_time));
            caller
        }))
    }
}

#[cfg(test)]
mod tests;
