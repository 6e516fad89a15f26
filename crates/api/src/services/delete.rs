//! `DELETE /os-services/{id}`: forgets a service whose host is empty. Its agent should be stopped before; one that lives on makes
//! itself known again when it next introduces itself.

use axum::extract::State;
use drover_store::services::{self, Deletion, Service};
use http::StatusCode;

use crate::app::services::delete as write;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::Path;
use crate::microversion::v2;
use crate::policy::Rule;
use crate::servers::lookup;
use crate::state::AppState;

/// `DELETE /os-services/{id}`
pub(crate) async fn delete(State(app): State<AppState>, call: Call, Path([id]): Path<1>) -> Result<StatusCode, ApiError> {
    app.policy().enforce_own(Rule::ServicesDelete, call.caller())?;
    let unknown = || ApiError::NotFound(format!("Service {id} could not be found."));
    let service = find(&app, &call, &id).await?.ok_or_else(unknown)?;
    match write(&app, &call.asked, &service).await? {
        Deletion::Done => Ok(StatusCode::NO_CONTENT),
        Deletion::Unknown => Err(unknown()),
        Deletion::HostsServers => Err(ApiError::Conflict(
            "Unable to delete compute service that is hosting instances. Migrate or delete the instances first.".to_owned(),
        )),
        Deletion::Migrating => Err(ApiError::Conflict(format!(
            "Unable to delete compute service that has in-progress migrations. Wait for those of host {}, or abort them.",
            service.host
        ))),
    }
}

async fn find(app: &AppState, call: &Call, id: &str) -> Result<Option<Service>, ApiError> {
    let mut conn = app.store().connection().await?;
    if call.version >= v2(53) {
        let uuid = lookup::uuid(id).ok_or_else(|| ApiError::bad_request(format!("Invalid uuid {id}")))?;
        return Ok(services::get(&mut conn, uuid.0, app.service_down_time()).await?);
    }
    let id = id.parse().map_err(|_| ApiError::bad_request("Invalid input received: id must be an integer"))?;
    Ok(services::get_by_id(&mut conn, id, app.service_down_time()).await?)
}
