//! `/os-aggregates`: hosts put together, and the availability zones that this makes (`nova/api/openstack/compute/aggregates.py`).

mod action;
pub(crate) mod schema;
mod view;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_store::PgConnection;
use drover_store::aggregates::{self, Aggregate};
use http::StatusCode;
use serde_json::{Value, json};

pub(crate) use self::action::run as action;
use self::view::View;
use crate::app::aggregates as write;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::policy::Rule;
use crate::state::AppState;

/// `GET /os-aggregates`
pub(crate) async fn index(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    app.policy().enforce_own(Rule::AggregatesIndex, call.caller())?;
    let mut conn = app.store().connection().await?;
    let found = aggregates::list(&mut conn, None).await?;
    let views: Vec<View<'_>> = found.iter().map(|aggregate| View::of(aggregate, &call)).collect();
    Ok(Json(json!({"aggregates": views})).into_response())
}

/// `POST /os-aggregates`
pub(crate) async fn create(State(app): State<AppState>, call: Call, body: Body) -> Result<Response, ApiError> {
    schema::CREATE.check_body(call.version, &body)?;
    app.policy().enforce_own(Rule::AggregatesCreate, call.caller())?;
    let wish = &body.value["aggregate"];
    let aggregate =
        write::create(&app, &call.asked, text(wish, "name").unwrap_or_default(), text(wish, "availability_zone")).await?;
    Ok(Json(json!({"aggregate": View::new(&aggregate, &call)})).into_response())
}

/// `GET /os-aggregates/{id}`
pub(crate) async fn show(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<Response, ApiError> {
    app.policy().enforce_own(Rule::AggregatesShow, call.caller())?;
    let id = integer(&id)?;
    let aggregate = find(&mut *app.store().connection().await?, id).await?;
    Ok(shown(&aggregate, &call))
}

/// `PUT /os-aggregates/{id}`
pub(crate) async fn update(State(app): State<AppState>, call: Call, Path([id]): Path<1>, body: Body) -> Result<Response, ApiError> {
    schema::UPDATE.check_body(call.version, &body)?;
    app.policy().enforce_own(Rule::AggregatesUpdate, call.caller())?;
    let wish = &body.value["aggregate"];
    // A zone of null takes it away; one that is not named stays.
    let zone = wish.get("availability_zone");
    let aggregate = write::update(&app, &call.asked, integer(&id)?, text(wish, "name"), zone).await?;
    Ok(shown(&aggregate, &call))
}

/// `DELETE /os-aggregates/{id}`
pub(crate) async fn delete(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<StatusCode, ApiError> {
    app.policy().enforce_own(Rule::AggregatesDelete, call.caller())?;
    write::delete(&app, &call.asked, integer(&id)?).await?;
    Ok(StatusCode::OK)
}

/// The aggregate, or 404.
pub(crate) async fn find(conn: &mut PgConnection, id: i64) -> Result<Aggregate, ApiError> {
    aggregates::get(conn, id).await?.ok_or_else(|| ApiError::NotFound(format!("Aggregate {id} could not be found.")))
}

fn integer(id: &str) -> Result<i64, ApiError> {
    id.parse().map_err(|_| ApiError::bad_request("Invalid input received: id must be an integer"))
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn shown(aggregate: &Aggregate, call: &Call) -> Response {
    Json(json!({"aggregate": View::of(aggregate, call)})).into_response()
}
