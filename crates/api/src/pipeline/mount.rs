//! Where on the server a request arrives: `/v2.1` (today's API), `/v2` (the same routes, as the first version answered), each with
//! or without the project in front of the resource. What is in front is taken off, so that each route is written once.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use http::uri::{PathAndQuery, Uri};

use super::webob;

/// Which of the two roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mount {
    /// `/v2.1`: microversions.
    Current,
    /// `/v2`: the API as it was before them. Microversion headers are neither read nor sent.
    Legacy,
}

impl Mount {
    /// The first segment of its paths.
    pub(crate) const fn segment(self) -> &'static str {
        match self {
            Self::Current => "v2.1",
            Self::Legacy => "v2",
        }
    }
}

/// The project that stood in the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProjectInUrl(pub(crate) String);

/// Middleware: leaves the path that the routes know.
pub(crate) async fn take_off(mut request: Request, next: Next) -> Response {
    // The routes answer GET only where Nova does; axum would answer HEAD there too.
    if request.method() == Method::HEAD {
        return webob::not_found(request.headers().clone()).await;
    }
    let uri = request.uri().clone();
    if let Some((mount, project, path)) = split(uri.path()) {
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        let Ok(rest) = PathAndQuery::try_from(format!("{path}{query}")) else {
            return webob::not_found(request.headers().clone()).await;
        };
        *request.uri_mut() = Uri::from(rest);
        request.extensions_mut().insert(mount);
        if let Some(project) = project {
            request.extensions_mut().insert(ProjectInUrl(project.to_owned()));
        }
    }
    next.run(request).await
}

/// The mount, the project if there is one, and the rest of the path; `None` outside of both mounts.
fn split(path: &str) -> Option<(Mount, Option<&str>, &str)> {
    let under = |mount: Mount| {
        let rest = path.strip_prefix('/')?.strip_prefix(mount.segment())?;
        (rest.is_empty() || rest.starts_with('/')).then_some((mount, rest))
    };
    let (mount, rest) = under(Mount::Current).or_else(|| under(Mount::Legacy))?;
    let in_front = rest.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    let project = in_front.filter(|(_, resource)| !resource.is_empty()).map(|(project, _)| project);
    // No resource's name is made of these characters only, and Nova takes no other project.
    let is_project = |text: &&str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    Some(match project.filter(is_project) {
        Some(project) => (mount, Some(project), &rest[1 + project.len()..]),
        None => (mount, None, if rest.is_empty() { "/" } else { rest }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_and_project_are_taken_off() {
        for (path, expected) in [
            ("/v2.1", Some((Mount::Current, None, "/"))),
            ("/v2.1/", Some((Mount::Current, None, "/"))),
            ("/v2/", Some((Mount::Legacy, None, "/"))),
            ("/v2.1/servers/x", Some((Mount::Current, None, "/servers/x"))),
            ("/v2.1/deadbeef/servers", Some((Mount::Current, Some("deadbeef"), "/servers"))),
            ("/v2/dead-beef/servers/detail", Some((Mount::Legacy, Some("dead-beef"), "/servers/detail"))),
            ("/v2.1/zzz/servers", Some((Mount::Current, None, "/zzz/servers"))),
            ("/v2.1/deadbeef", Some((Mount::Current, None, "/deadbeef"))),
            ("/v2.1//servers", Some((Mount::Current, None, "//servers"))),
            ("/v2.1/deadbeef/", Some((Mount::Current, None, "/deadbeef/"))),
            ("/v2.10/servers", None),
            ("/v3/servers", None),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
    }
}
