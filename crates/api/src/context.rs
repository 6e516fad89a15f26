//! What a handler knows of its request: who asks, in which microversion, under which id.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use drover_common::ids::RequestId;
use drover_common::rpc::Envelope;
use drover_common::rpc::envelope::UserContext;
use http::HeaderValue;
use http::request::Parts;

use crate::error::ApiError;
use crate::extract;
use crate::links::Links;
use crate::microversion::Microversion;
use crate::pipeline::mount::{Mount, ProjectInUrl};
use crate::state::AppState;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The user's id.
    pub(crate) user_id: String,
    /// The id of the project that the token is for.
    pub(crate) project_id: String,
    roles: Vec<String>,
    is_admin: bool,
    is_admin_project: bool,
}

impl Caller {
    /// A user with these roles in a project. Keystone expands `admin` to all of them; Nova implies nothing, and neither do we.
    pub(crate) fn new(user_id: &str, project_id: &str, roles: &[&str]) -> Self {
        Self {
            user_id: user_id.to_owned(),
            project_id: project_id.to_owned(),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            is_admin: roles.contains(&"admin"),
            is_admin_project: true,
        }
    }

    /// The same in a project that Keystone counts, or does not count, as the one for administration.
    pub(crate) fn with_admin_project(self, is_admin_project: bool) -> Self {
        Self { is_admin_project, ..self }
    }

    /// The same, admin or not by a rule of its own.
    pub(crate) fn with_admin(self, is_admin: bool) -> Self {
        Self { is_admin, ..self }
    }

    /// Whether the token carries this role. Case does not matter, as in oslo.policy.
    pub(crate) fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r.eq_ignore_ascii_case(role))
    }

    /// Nova's `context_is_admin`.
    pub(crate) fn is_admin(&self) -> bool {
        self.is_admin
    }

    /// Whether the project is Keystone's for administration; true where it has none.
    pub(crate) fn is_admin_project(&self) -> bool {
        self.is_admin_project
    }
}

/// A request of one user, as the extensions of Drover's own see it: who asks, under which id.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Who asks.
    pub(crate) caller: Arc<Caller>,
    /// The id of the request.
    pub(crate) request_id: RequestId,
}

impl Asked {
    /// A message on behalf of this request.
    pub(crate) fn envelope<M>(&self, message: M) -> Envelope<M> {
        let mut envelope = Envelope::new(message).for_request(Some(self.request_id.clone()));
        envelope.context =
            UserContext { user_id: Some(self.caller.user_id.clone()), project_id: Some(self.caller.project_id.clone()) };
        envelope
    }
}

impl FromRequestParts<AppState> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, ApiError> {
        let extensions = &parts.extensions;
        // Both are there: the pipeline put them. Were it built wrongly, nobody would get in.
        let (Some(caller), Some(request_id)) = (extensions.get::<Arc<Caller>>(), extensions.get::<RequestId>()) else {
            return Err(ApiError::Unauthorized { challenge: HeaderValue::from_static("Drover") });
        };
        Ok(Self { caller: caller.clone(), request_id: request_id.clone() })
    }
}

/// A request to Nova's API. Getting one checks what Nova checks before it looks at the body: the content type, and that a project
/// in the URL is the token's.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Who asks.
    pub(crate) asked: Asked,
    /// The negotiated version; 2.1 on the legacy mount.
    pub(crate) version: Microversion,
    /// `/v2.1` or `/v2`.
    pub(crate) mount: Mount,
    /// How links in the answer begin.
    pub(crate) links: Links,
    /// The query, as it came.
    pub(crate) query: Vec<(String, String)>,
}

impl Call {
    /// Who asks.
    pub(crate) fn caller(&self) -> &Caller {
        &self.asked.caller
    }

    /// Refuses as Nova does when the resource exists only from `version` on.
    pub(crate) fn since(&self, version: Microversion) -> Result<(), ApiError> {
        if self.version >= version { Ok(()) } else { Err(ApiError::NotInThisVersion) }
    }

    /// Refuses as Nova does when the resource exists only up to `version`.
    pub(crate) fn until(&self, version: Microversion) -> Result<(), ApiError> {
        if self.version <= version { Ok(()) } else { Err(ApiError::NotInThisVersion) }
    }
}

impl FromRequestParts<AppState> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let asked = Asked::from_request_parts(parts, app).await?;
        extract::check_content_type(&parts.headers)?;
        let project_in_url = parts.extensions.get::<ProjectInUrl>().map(|project| project.0.as_str());
        if let Some(project) = project_in_url
            && project != asked.caller.project_id
        {
            return Err(ApiError::bad_request(format!(
                "Malformed request URL: URL's project_id '{project}' doesn't match Context's project_id '{}'",
                asked.caller.project_id
            )));
        }
        let (Some(version), Some(mount)) = (parts.extensions.get().copied(), parts.extensions.get().copied()) else {
            return Err(ApiError::NotInThisVersion);
        };
        Ok(Self {
            version,
            mount,
            links: Links::new(parts, app, mount, &asked.caller.project_id),
            query: extract::query(parts.uri.query().unwrap_or_default())?,
            asked,
        })
    }
}
