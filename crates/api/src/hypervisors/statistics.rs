//! `GET /os-hypervisors/statistics`: the sum over all enabled hosts, until 2.87.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use drover_store::hosts::{self, Hypervisor};
use serde_json::json;

use crate::context::Call;
use crate::error::ApiError;
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;

/// `GET /os-hypervisors/statistics`
pub(crate) async fn statistics(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    call.until(v2(87))?;
    app.policy().enforce_own(Rule::HypervisorsStatistics, call.caller())?;
    let mut conn = app.store().connection().await?;
    let mut found = hosts::hypervisors(&mut conn, app.service_down_time()).await?;
    drop(conn);
    // Nova leaves out hosts whose service is disabled.
    found.retain(|hypervisor| hypervisor.state.disabled.is_none());
    let sum = |value: fn(&Hypervisor) -> i64| found.iter().map(value).sum::<i64>();
    Ok(Json(json!({"hypervisor_statistics": {
        "count": found.len(),
        "vcpus": sum(|h| h.state.vcpus),
        "vcpus_used": sum(|h| h.state.vcpus_used),
        "memory_mb": sum(|h| h.state.memory_mb),
        "memory_mb_used": sum(|h| h.state.memory_mb_used),
        "free_ram_mb": sum(|h| h.state.memory_mb - h.state.memory_mb_used),
        "local_gb": sum(|h| h.local_gb),
        "local_gb_used": sum(|h| h.local_gb - h.free_disk_gb),
        "free_disk_gb": sum(|h| h.free_disk_gb),
        "disk_available_least": sum(|h| h.free_disk_gb),
        "current_workload": sum(|h| h.state.migrations),
        "running_vms": sum(|h| h.running_vms),
    }}))
    .into_response())
}
