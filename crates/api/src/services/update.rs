//! `PUT /os-services/…`: before 2.53 the path says what to do and the body with whom; from then on it is the other way round.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_common::ids::HostName;
use drover_store::services::{self, Service};
use serde_json::{Value, json};

use super::View;
use crate::app::services::{ServiceWish, update as write};
use crate::availability_zones::Zones;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::microversion::v2;
use crate::policy::Rule;
use crate::servers::lookup;
use crate::state::AppState;
use crate::validation::Schemas;
use crate::validation::types::{as_bool, boolean, fqdn, text};

pub(crate) static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let by_name = |forced_down: bool| {
        let mut properties = json!({"host": fqdn(), "binary": text(), "disabled_reason": text()});
        if forced_down {
            properties["forced_down"] = boolean();
        }
        json!({"type": "object", "properties": properties, "required": ["host", "binary"], "additionalProperties": false})
    };
    let by_uuid = json!({
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["enabled", "disabled"]},
            "disabled_reason": text(),
            "forced_down": boolean(),
        },
        "additionalProperties": false,
    });
    Schemas::new([(v2(1), by_name(false)), (v2(11), by_name(true)), (v2(53), by_uuid)])
});

/// `PUT /os-services/{what}`
pub(crate) async fn update(
    State(app): State<AppState>,
    call: Call,
    Path([what]): Path<1>,
    body: Body,
) -> Result<Response, ApiError> {
    SCHEMAS.check_body(call.version, &body)?;
    app.policy().enforce_own(Rule::ServicesUpdate, call.caller())?;
    if call.version >= v2(53) {
        by_uuid(&app, &call, &what, &body.value).await
    } else {
        by_name(&app, &call, &what, &body.value).await
    }
}

async fn by_name(app: &AppState, call: &Call, what: &str, body: &Value) -> Result<Response, ApiError> {
    let (host, binary) = (body["host"].as_str().unwrap_or_default(), body["binary"].as_str().unwrap_or_default());
    let mut service = json!({"host": host, "binary": binary});
    let wish = match what {
        "enable" => ServiceWish { disabled: Some(false), ..ServiceWish::default() },
        "disable" => ServiceWish { disabled: Some(true), ..ServiceWish::default() },
        "disable-log-reason" => {
            let reason = body.get("disabled_reason").and_then(Value::as_str);
            let reason = reason.ok_or_else(|| ApiError::bad_request("Missing disabled reason field"))?;
            service["disabled_reason"] = json!(reason);
            ServiceWish { disabled: Some(true), disabled_reason: Some(reason.to_owned()), ..ServiceWish::default() }
        }
        "force-down" if call.version >= v2(11) => {
            let forced = body.get("forced_down").map(as_bool);
            let forced = forced.ok_or_else(|| ApiError::bad_request("Missing forced_down field"))?;
            service["forced_down"] = json!(forced);
            ServiceWish { forced_down: Some(forced), ..ServiceWish::default() }
        }
        _ => return Err(ApiError::NotFound("Unknown action".to_owned())),
    };
    check_binary(binary)?;
    let unknown = || ApiError::NotFound(format!("Host '{host}' is not mapped to any cell"));
    let name = HostName::new(host).map_err(|_| unknown())?;
    if !write(app, &call.asked, &name, &wish).await? {
        return Err(unknown());
    }
    if let Some(disabled) = wish.disabled {
        service["status"] = json!(if disabled { "disabled" } else { "enabled" });
    }
    Ok(Json(json!({"service": service})).into_response())
}

async fn by_uuid(app: &AppState, call: &Call, id: &str, body: &Value) -> Result<Response, ApiError> {
    let Some(uuid) = lookup::uuid(id) else {
        return Err(ApiError::bad_request(format!("Invalid uuid {id}")));
    };
    let found = async || -> Result<Service, ApiError> {
        let mut conn = app.store().connection().await?;
        let service = services::get(&mut conn, uuid.0, app.service_down_time()).await?;
        service.ok_or_else(|| ApiError::NotFound(format!("Service {id} could not be found.")))
    };
    let service = found().await?;
    check_binary(&service.binary)?;
    write(app, &call.asked, &service.host, &wish_of(body)?).await?;
    let service = found().await?;
    let zones = Zones::read(app, &mut *app.store().connection().await?).await?;
    Ok(Json(json!({"service": View::of(&service, &zones, call)})).into_response())
}

fn wish_of(body: &Value) -> Result<ServiceWish, ApiError> {
    let status = body.get("status").and_then(Value::as_str);
    let reason = body.get("disabled_reason").and_then(Value::as_str);
    let forced_down = body.get("forced_down").map(as_bool);
    match (status, reason) {
        (Some("enabled"), Some(_)) => Err(ApiError::bad_request("Specifying 'disabled_reason' with status 'enabled' is invalid.")),
        (None, _) if forced_down.is_none() => {
            Err(ApiError::bad_request("No updates were requested. Fields 'status' or 'forced_down' should be specified."))
        }
        _ => Ok(ServiceWish {
            disabled: status.map(|status| status == "disabled"),
            disabled_reason: reason.filter(|_| status.is_some()).map(str::to_owned),
            forced_down,
        }),
    }
}

fn check_binary(binary: &str) -> Result<(), ApiError> {
    if binary == services::COMPUTE {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("Updating a {binary} service is not supported. Only nova-compute services can be updated.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_compile() {
        LazyLock::force(&SCHEMAS);
    }

    #[test]
    fn a_reason_goes_with_being_disabled() {
        let wish = wish_of(&json!({"status": "disabled", "disabled_reason": "fan"})).unwrap();
        assert_eq!(wish, ServiceWish { disabled: Some(true), disabled_reason: Some("fan".to_owned()), forced_down: None });
        assert!(wish_of(&json!({"status": "enabled", "disabled_reason": "fan"})).is_err());
        assert!(wish_of(&json!({"disabled_reason": "fan"})).is_err());
        let wish = wish_of(&json!({"disabled_reason": "fan", "forced_down": "true"})).unwrap();
        assert_eq!(wish, ServiceWish { forced_down: Some(true), ..ServiceWish::default() });
    }
}
