//! Links in answers.

use http::header;
use http::request::Parts;
use serde::Serialize;

use crate::pipeline::mount::{Mount, ProjectInUrl};
use crate::state::AppState;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Link {
    rel: &'static str,
    href: String,
}

/// How links begin.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    /// Scheme, host, and path of a proxy if one is configured.
    base: String,
    mount: Mount,
    /// The project, when the request's URL has it anywhere.
    project: Option<String>,
}

/// Scheme, host and prefix as the request's own links have it (`[api] compute_link_prefix` when it is set).
pub(crate) fn base(parts: &Parts, app: &AppState) -> String {
    if let Some(prefix) = &app.config().compute_link_prefix {
        return prefix.trim_end_matches('/').to_owned();
    }
    let host = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let scheme = app.scheme();
    match host {
        Some(host) => format!("{scheme}://{host}"),
        None => format!("{scheme}://{}:{}", app.config().osapi_compute_listen, app.config().osapi_compute_listen_port),
    }
}

impl Links {
    /// For the answer to this request.
    pub(crate) fn new(parts: &Parts, app: &AppState, mount: Mount, project: &str) -> Self {
        let in_path = parts.extensions.get::<ProjectInUrl>().is_some();
        let in_query = parts.uri.query().is_some_and(|query| query.contains(project));
        // Only what the URL's own form of a project allows, so that the links lead somewhere.
        let fits = !project.is_empty() && project.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        Self { base: base(parts, app), mount, project: (in_path || (in_query && fits)).then(|| project.to_owned()) }
    }

    fn project(&self) -> String {
        self.project.as_ref().map_or_else(String::new, |project| format!("/{project}"))
    }

    /// Where a resource is, in this version of the API.
    pub(crate) fn own(&self, collection: &str, id: &str) -> String {
        format!("{}/{}{}/{collection}/{}", self.base, self.mount.segment(), self.project(), encoded(id))
    }

    /// The two links that most resources have.
    pub(crate) fn of(&self, collection: &str, id: &str) -> Vec<Link> {
        let own = Link { rel: "self", href: self.own(collection, id) };
        vec![own, self.bookmark(collection, id)]
    }

    /// The one without the version.
    pub(crate) fn bookmark(&self, collection: &str, id: &str) -> Link {
        Link { rel: "bookmark", href: format!("{}{}/{collection}/{}", self.base, self.project(), encoded(id)) }
    }

    /// The page after the one that ends with `marker`: the request's own parameters by name, with another marker.
    pub(crate) fn next(&self, collection: &str, query: &[(String, String)], marker: &str) -> Vec<Link> {
        let mut parameters: Vec<(&str, &str)> =
            query.iter().map(|(n, v)| (n.as_str(), v.as_str())).filter(|&(name, _)| name != "marker").collect();
        parameters.sort_by_key(|&(name, _)| name); // Stable: repeated ones keep their order, which counts for `sort_key`.
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).append_pair("marker", marker).finish();
        vec![Link { rel: "next", href: format!("{}/{}{}/{collection}?{query}", self.base, self.mount.segment(), self.project()) }]
    }
}

/// An id as a segment of a path.
fn encoded(id: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}"); // Writing to a String cannot fail.
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_through_the_mount_and_the_project() {
        let links = Links { base: "http://api:8774".to_owned(), mount: Mount::Current, project: Some("deadbeef".to_owned()) };
        let hrefs: Vec<String> = links.of("servers", "a b").into_iter().map(|l| l.href).collect();
        assert_eq!(hrefs, ["http://api:8774/v2.1/deadbeef/servers/a%20b", "http://api:8774/deadbeef/servers/a%20b"]);
    }

    #[test]
    fn the_next_link_has_the_parameters_by_name_and_the_marker_last() {
        let links = Links { base: "http://api".to_owned(), mount: Mount::Legacy, project: None };
        let query = [("name", "a b"), ("marker", "old"), ("limit", "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let next = links.next("servers/detail", &query, "new");
        assert_eq!(next[0].href, "http://api/v2/servers/detail?limit=2&name=a+b&marker=new");
    }
}
