//! Version discovery: what is served where. Clients read it before they have a token.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};

use crate::links;
use crate::microversion::{MAX, MIN};
use crate::pipeline::mount::Mount;
use crate::state::AppState;

/// What is the same in every document about one of the two APIs.
struct Api {
    mount: Mount,
    id: &'static str,
    status: &'static str,
    updated: &'static str,
    media_type: &'static str,
}

const LEGACY: Api = Api {
    mount: Mount::Legacy,
    id: "v2.0",
    status: "DEPRECATED",
    updated: "2025-07-04T12:00:00Z",
    media_type: "application/vnd.openstack.compute+json;version=2",
};
const CURRENT: Api = Api {
    mount: Mount::Current,
    id: "v2.1",
    status: "CURRENT",
    updated: "2013-07-23T11:33:21Z",
    media_type: "application/vnd.openstack.compute+json;version=2.1",
};

impl Api {
    /// Newest and oldest microversion; the legacy API has none.
    fn range(&self) -> (String, String) {
        match self.mount {
            Mount::Current => (MAX.to_string(), MIN.to_string()),
            Mount::Legacy => (String::new(), String::new()),
        }
    }

    fn listed(&self, base: &str) -> Value {
        let (version, min_version) = self.range();
        json!({
            "id": self.id,
            "status": self.status,
            "version": version,
            "min_version": min_version,
            "updated": self.updated,
            "links": [{"rel": "self", "href": format!("{base}/{}/", self.mount.segment())}],
        })
    }

    fn shown(&self, base: &str) -> Value {
        let mut document = self.listed(base);
        document["links"] = json!([
            {"rel": "self", "href": format!("{base}/{}/", self.mount.segment())},
            {"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"},
        ]);
        document["media-types"] = json!([{"base": "application/json", "type": self.media_type}]);
        document
    }

    fn choice(&self, base: &str, path: &str) -> Value {
        json!({
            "id": self.id,
            "status": self.status,
            "links": [{"rel": "self", "href": format!("{base}/{}{path}", self.mount.segment())}],
            "media-types": [{"base": "application/json", "type": self.media_type}],
        })
    }
}

fn parts(request: Request) -> Parts {
    request.into_parts().0
}

/// `GET /`
pub(crate) async fn list(State(app): State<AppState>, request: Request) -> Json<Value> {
    let base = links::base(&parts(request), &app);
    Json(json!({"versions": [LEGACY.listed(&base), CURRENT.listed(&base)]}))
}

/// `GET /v2.1` and `GET /v2`
pub(crate) async fn show(State(app): State<AppState>, request: Request) -> Json<Value> {
    let parts = parts(request);
    let api = if parts.extensions.get() == Some(&Mount::Legacy) { LEGACY } else { CURRENT };
    Json(json!({"version": api.shown(&links::base(&parts, &app))}))
}

/// Any other path outside of both: 300, and where the same path would be inside of them.
pub(crate) async fn choices(State(app): State<AppState>, request: Request) -> Response {
    let parts = parts(request);
    let base = links::base(&parts, &app);
    let choices = [LEGACY, CURRENT].map(|api| api.choice(&base, parts.uri.path()));
    (StatusCode::MULTIPLE_CHOICES, Json(json!({"choices": choices}))).into_response()
}
