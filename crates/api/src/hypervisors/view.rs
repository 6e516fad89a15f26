//! Hypervisors as the API shows them.

use std::collections::HashMap;

use drover_store::hosts::Hypervisor;
use drover_store::servers::Hosted;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::context::Call;
use crate::microversion::v2;

#[derive(Serialize)]
pub(super) struct View<'a> {
    id: Value,
    hypervisor_hostname: &'a str,
    state: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<Vec<ServerView<'a>>>,
    #[serde(flatten)]
    details: Option<Details<'a>>,
}

#[derive(Serialize)]
struct ServerView<'a> {
    name: &'a str,
    uuid: Uuid,
}

#[derive(Serialize)]
struct Details<'a> {
    hypervisor_type: &'a str,
    hypervisor_version: i32,
    host_ip: &'a str,
    service: ServiceView<'a>,
    #[serde(flatten)]
    usage: Option<Usage>,
    /// Since 2.88, `null` when nobody can tell: libvirt does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime: Option<Value>,
}

/// Until 2.87.
#[derive(Serialize)]
struct Usage {
    vcpus: i64,
    memory_mb: i64,
    local_gb: i64,
    vcpus_used: i64,
    memory_mb_used: i64,
    local_gb_used: i64,
    free_ram_mb: i64,
    free_disk_gb: i64,
    current_workload: i64,
    running_vms: i64,
    /// What Nova computes of sparse images; libvirt's view of the file system is `free_disk_gb`.
    disk_available_least: Option<i64>,
    cpu_info: Value,
}

#[derive(Serialize)]
struct ServiceView<'a> {
    id: Value,
    host: &'a str,
    disabled_reason: Option<&'a str>,
}

impl<'a> View<'a> {
    pub(super) fn of(
        hypervisor: &'a Hypervisor,
        call: &Call,
        hosted: Option<&'a HashMap<String, Vec<Hosted>>>,
        detailed: bool,
    ) -> Self {
        let by_uuid = call.version >= v2(53);
        let servers = hosted.map(|by_host| {
            let here = by_host.get(hypervisor.state.host.as_str()).map(Vec::as_slice).unwrap_or_default();
            here.iter().map(|server| ServerView { name: &server.domain_name, uuid: server.uuid }).collect::<Vec<_>>()
        });
        Self {
            id: if by_uuid { json!(hypervisor.uuid) } else { json!(hypervisor.id) },
            hypervisor_hostname: &hypervisor.hypervisor_hostname,
            state: if hypervisor.state.up { "up" } else { "down" },
            status: if hypervisor.state.disabled.is_some() { "disabled" } else { "enabled" },
            // Before 2.75 an empty list was left out.
            servers: servers.filter(|servers| call.version >= v2(75) || !servers.is_empty()),
            details: detailed.then(|| Details::of(hypervisor, call)),
        }
    }
}

impl<'a> Details<'a> {
    fn of(hypervisor: &'a Hypervisor, call: &Call) -> Self {
        let state = &hypervisor.state;
        let service = ServiceView {
            id: if call.version >= v2(53) { json!(hypervisor.service_uuid) } else { json!(hypervisor.service_id) },
            host: state.host.as_str(),
            disabled_reason: state.disabled.as_deref().filter(|reason| !reason.is_empty()),
        };
        Self {
            hypervisor_type: &state.hypervisor_type,
            hypervisor_version: state.hypervisor_version,
            host_ip: &hypervisor.host_ip,
            service,
            usage: (call.version < v2(88)).then(|| Usage::of(hypervisor, call)),
            uptime: (call.version >= v2(88)).then_some(Value::Null),
        }
    }
}

impl Usage {
    fn of(hypervisor: &Hypervisor, call: &Call) -> Self {
        let state = &hypervisor.state;
        Self {
            vcpus: state.vcpus,
            memory_mb: state.memory_mb,
            local_gb: hypervisor.local_gb,
            vcpus_used: state.vcpus_used,
            memory_mb_used: state.memory_mb_used,
            local_gb_used: hypervisor.local_gb - hypervisor.free_disk_gb,
            free_ram_mb: state.memory_mb - state.memory_mb_used,
            free_disk_gb: hypervisor.free_disk_gb,
            current_workload: state.migrations,
            running_vms: hypervisor.running_vms,
            disk_available_least: None,
            cpu_info: cpu_info(&hypervisor.cpu_info, call),
        }
    }
}

/// Before 2.28 the JSON was a text.
fn cpu_info(info: &Value, call: &Call) -> Value {
    if call.version >= v2(28) { info.clone() } else { Value::String(info.to_string()) }
}
