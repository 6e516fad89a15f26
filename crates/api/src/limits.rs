//! `GET /limits`: what a project may have, and has. There are no quotas, because servers come from the hosts: -1 says so, as in
//! Nova; what is bounded is bounded for everybody (`nova/api/openstack/compute/limits.py`).

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_store::servers;
use serde_json::json;

use crate::context::Call;
use crate::error::ApiError;
use crate::microversion::v2;
use crate::policy::Rule;
use crate::servers::metadata::ITEMS_MAX;
use crate::state::AppState;
use crate::validation::Schemas;
use crate::validation::types::common;

pub(crate) static QUERY: LazyLock<Schemas> = LazyLock::new(|| {
    let properties = json!({"tenant_id": common(), "reserved": common()});
    let object = |open: bool| json!({"type": "object", "properties": properties, "additionalProperties": open});
    Schemas::new([(v2(1), object(true)), (v2(75), object(false))])
});

/// No bound.
const UNLIMITED: i64 = -1;

/// `GET /limits`
pub(crate) async fn show(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    let query = QUERY.check_query(call.version, &call.query)?;
    app.policy().enforce_own(Rule::Limits, call.caller())?;
    let own = &*call.caller().project_id;
    let project = query.get("tenant_id").unwrap_or(own);
    if project != own {
        app.policy().enforce_own(Rule::LimitsOtherProject, call.caller())?;
    }
    let mut conn = app.store().connection().await?;
    let used = servers::usage(&mut conn, project).await?;
    drop(conn);
    let mut absolute = json!({
        "maxTotalInstances": UNLIMITED,
        "maxTotalCores": UNLIMITED,
        "maxTotalRAMSize": UNLIMITED,
        "maxTotalKeypairs": UNLIMITED,
        "maxServerMeta": ITEMS_MAX,
        "maxServerGroups": UNLIMITED,
        "maxServerGroupMembers": UNLIMITED,
        "totalInstancesUsed": used.instances,
        "totalCoresUsed": used.vcpus,
        "totalRAMUsed": used.memory_mb,
        "totalServerGroupsUsed": used.server_groups,
    });
    let mut add = |until: u16, names: &[&str], value: i64| {
        for name in names.iter().filter(|_| call.version <= v2(until)) {
            absolute[*name] = json!(value);
        }
    };
    add(56, &["maxPersonality", "maxPersonalitySize"], UNLIMITED);
    add(38, &["maxImageMeta"], UNLIMITED);
    add(35, &["maxTotalFloatingIps", "maxSecurityGroups", "maxSecurityGroupRules"], UNLIMITED);
    add(35, &["totalFloatingIpsUsed", "totalSecurityGroupsUsed"], 0);
    Ok(Json(json!({"limits": {"rate": [], "absolute": absolute}})).into_response())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_compile() {
        std::sync::LazyLock::force(&super::QUERY);
    }
}
