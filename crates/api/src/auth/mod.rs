//! Who the caller is. One strategy is configured (`[api] auth_strategy`); each is a variant of [`Authenticator`] with its own file.
//!
//! *Adding one:* a file with a type that turns headers into a [`Caller`], a variant here, a variant of `AuthStrategy` in the
//! configuration. A strategy that cannot reach whoever knows the answer says [`ApiError::Unavailable`]: it never lets anybody in.

mod gate;
mod htpasswd;
mod http_basic;
mod keystone;
mod noauth;
mod verified;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use drover_common::config::{AuthStrategy, Config, ConfigError};
use http::HeaderMap;

use crate::context::Caller;
use crate::error::ApiError;
use crate::state::AppState;

use http_basic::HttpBasic;
use keystone::Keystone;

/// The strategy in force.
pub(crate) enum Authenticator {
    /// Everybody is taken at their word.
    Noauth,
    /// A password, of which we have the hash.
    HttpBasic(HttpBasic),
    /// A token, about which Keystone is asked.
    Keystone(Box<Keystone>),
}

impl Authenticator {
    /// The one that is configured, if it can work.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        Ok(match config.api.auth_strategy {
            AuthStrategy::Noauth => Self::Noauth,
            AuthStrategy::HttpBasic => {
                Self::HttpBasic(HttpBasic::new(&config.api.http_basic_auth_user_file, &config.default.default_project_id)?)
            }
            AuthStrategy::Keystone => Self::Keystone(Box::new(Keystone::new(&config.keystone_authtoken)?)),
        })
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        match self {
            Self::Noauth => noauth::caller(headers),
            Self::HttpBasic(http_basic) => http_basic.caller(headers).await,
            Self::Keystone(keystone) => keystone.caller(headers).await,
        }
    }
}

/// Middleware: no request gets to the router without a [`Caller`]. The version documents need none: clients read them before
/// they have a token.
pub(crate) async fn authenticate(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    if matches!(request.uri().path(), "/v2" | "/v2/" | "/v2.1" | "/v2.1/") {
        return next.run(request).await;
    }
    match app.authenticator().authenticate(request.headers()).await {
        Ok(caller) => {
            tracing::Span::current().record("user.id", &caller.user_id).record("project.id", &caller.project_id);
            request.extensions_mut().insert(Arc::new(app.policy().judge(caller)));
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}
