//! `/flavors`: the sizes that servers have. There is no catalogue (servers come from the hosts), so a flavor exists while a server
//! has it, its name is its id, and nothing can be written.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_common::server::Flavor;
use drover_store::servers;
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Call;
use crate::error::ApiError;
use crate::extract::Path;
use crate::links::Link;
use crate::microversion::v2;
use crate::state::AppState;
use crate::validation::types::{common, multi, non_negative_integer};
use crate::validation::{Query, Schemas};

pub(crate) static LIST: LazyLock<Schemas> = LazyLock::new(|| {
    let properties = json!({
        "limit": multi(&non_negative_integer()),
        "marker": common(),
        "is_public": common(),
        "minRam": common(),
        "minDisk": common(),
        "sort_key": common(),
        "sort_dir": common(),
    });
    let object = |open: bool| json!({"type": "object", "properties": properties, "additionalProperties": open});
    Schemas::new([(v2(1), object(true)), (v2(75), object(false))])
});

#[derive(Serialize)]
struct View<'a> {
    id: &'a str,
    name: &'a str,
    links: Vec<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Value>,
    #[serde(flatten)]
    details: Option<Details>,
}

#[derive(Serialize)]
struct Details {
    ram: i32,
    disk: i32,
    vcpus: i32,
    swap: Value,
    #[serde(rename = "OS-FLV-EXT-DATA:ephemeral")]
    ephemeral: i32,
    #[serde(rename = "OS-FLV-DISABLED:disabled")]
    disabled: bool,
    #[serde(rename = "os-flavor-access:is_public")]
    is_public: bool,
    rxtx_factor: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_specs: Option<Value>,
}

impl<'a> View<'a> {
    fn of(flavor: &'a Flavor, call: &Call, detailed: bool) -> Self {
        Self {
            id: &flavor.name,
            name: &flavor.name,
            links: call.links.of("flavors", &flavor.name),
            description: (call.version >= v2(55)).then_some(Value::Null),
            details: detailed.then(|| Details {
                ram: flavor.memory_mb,
                disk: flavor.root_gb,
                vcpus: flavor.vcpus,
                // No swap was an empty text before 2.75.
                swap: if flavor.swap_mb == 0 && call.version < v2(75) { json!("") } else { json!(flavor.swap_mb) },
                ephemeral: flavor.ephemeral_gb,
                disabled: false,
                is_public: true,
                rxtx_factor: 1.0,
                extra_specs: (call.version >= v2(61)).then(|| json!({})),
            }),
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    flavors: Vec<View<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flavors_links: Option<Vec<Link>>,
}

/// `GET /flavors`
pub(crate) async fn index(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    list(&app, &call, "flavors", false).await
}

/// `GET /flavors/detail`
pub(crate) async fn detail(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    list(&app, &call, "flavors/detail", true).await
}

async fn list(app: &AppState, call: &Call, collection: &str, detailed: bool) -> Result<Response, ApiError> {
    let query = LIST.check_query(call.version, &call.query)?;
    let limit = query.limit(app.config().max_limit)?;
    let least = |name: &str| -> Result<i32, ApiError> {
        let text = query.get(name).unwrap_or("0");
        text.parse().map_err(|_| ApiError::bad_request(format!("Invalid {name} filter [{text}]")))
    };
    let (ram, disk) = (least("minRam")?, least("minDisk")?);
    let mut conn = app.store().connection().await?;
    let mut found = servers::flavors(&mut conn, None).await?;
    drop(conn);
    found.retain(|flavor| flavor.memory_mb >= ram && flavor.root_gb >= disk && !asks_for_private_ones(&query));
    if let Some(marker) = query.get("marker") {
        let place = found.iter().position(|flavor| flavor.name == marker);
        let place = place.ok_or_else(|| ApiError::bad_request(format!("marker [{marker}] not found")))?;
        found.drain(..=place);
    }
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let full = limit > 0 && i64::try_from(found.len()) == Ok(limit);
    let next = found.last().filter(|_| full).map(|last| call.links.next(collection, &call.query, &last.name));
    let flavors = found.iter().map(|flavor| View::of(flavor, call, detailed)).collect();
    Ok(Json(Document { flavors, flavors_links: next }).into_response())
}

/// All of ours are public.
fn asks_for_private_ones(query: &Query) -> bool {
    query
        .get("is_public")
        .is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "0" | "f" | "false" | "n" | "no" | "off"))
}

/// `GET /flavors/{id}`
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<Response, ApiError> {
    let unknown = || ApiError::NotFound(format!("Flavor {id} could not be found."));
    if id.contains('\0') {
        return Err(unknown());
    }
    let mut conn = app.store().connection().await?;
    let found = servers::flavors(&mut conn, Some(&id)).await?;
    let flavor = found.first().ok_or_else(unknown)?;
    Ok(Json(json!({"flavor": View::of(flavor, &call, true)})).into_response())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::LIST);
    }
}
