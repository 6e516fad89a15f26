//! Servers as the API shows them. Which keys are there follows from the microversion and from who asks, and from nothing else:
//! clients hold answers against closed schemas.

use std::collections::HashMap;

use drover_common::ids::ServerId;
use drover_common::server::{Flavor, ServerStatus};
use drover_store::actions::ServerFault;
use drover_store::servers::Server;
use drover_store::services::Service;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha224};
use uuid::Uuid;

use crate::availability_zones::Zones;
use crate::context::Call;
use crate::links::{Link, Links};
use crate::microversion::v2;
use crate::policy::Rule;
use crate::state::AppState;
use crate::time::{ts, tsz};

/// What of a server the caller may see.
pub(super) struct Visible {
    /// `host_status`.
    pub(super) host_status: bool,
    extended_attributes: bool,
    /// Tracebacks and the like.
    all_faults: bool,
}

impl Visible {
    pub(super) fn to(app: &AppState, call: &Call) -> Self {
        let caller = call.caller();
        let allows = |rule| app.policy().allows(rule, caller, &caller.project_id);
        Self {
            host_status: allows(Rule::ServersHostStatus),
            extended_attributes: allows(Rule::ExtendedServerAttributes),
            all_faults: caller.is_admin(),
        }
    }
}

/// What is shown with servers and stands in other tables.
pub(super) struct Beside {
    pub(super) faults: HashMap<Uuid, ServerFault>,
    pub(super) services: HashMap<String, Service>,
    pub(super) zones: Zones,
    /// Of one server alone.
    pub(super) server_groups: Vec<Uuid>,
}

/// A server in `GET /servers`.
#[derive(Serialize)]
pub(super) struct Short<'a> {
    id: ServerId,
    name: &'a str,
    links: Vec<Link>,
}

pub(super) fn short<'a>(server: &'a Server, links: &Links) -> Short<'a> {
    Short { id: server.uuid, name: &server.display_name, links: links.of("servers", &server.uuid.to_string()) }
}

/// A server with all its fields. What libvirt's domains do not know is what Nova shows for a server that has none of it.
#[derive(Serialize)]
pub(super) struct Full<'a> {
    id: ServerId,
    name: &'a str,
    status: ServerStatus,
    tenant_id: &'a str,
    user_id: &'a str,
    metadata: &'a Value,
    #[serde(rename = "hostId")]
    host_id: String,
    image: &'static str,
    flavor: FlavorView<'a>,
    created: String,
    updated: String,
    addresses: Nothing,
    #[serde(rename = "accessIPv4")]
    access_ip_v4: &'static str,
    #[serde(rename = "accessIPv6")]
    access_ip_v6: &'static str,
    links: Vec<Link>,
    #[serde(rename = "OS-DCF:diskConfig")]
    disk_config: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<FaultView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<i16>,
    #[serde(rename = "OS-EXT-AZ:availability_zone")]
    availability_zone: &'a str,
    config_drive: &'static str,
    key_name: Option<&'static str>,
    #[serde(rename = "OS-SRV-USG:launched_at")]
    launched_at: String,
    #[serde(rename = "OS-SRV-USG:terminated_at")]
    terminated_at: Option<String>,
    #[serde(rename = "OS-EXT-SRV-ATTR:host", skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:hypervisor_hostname", skip_serializing_if = "Option::is_none")]
    hypervisor_hostname: Option<&'a str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:instance_name", skip_serializing_if = "Option::is_none")]
    instance_name: Option<&'a str>,
    /// For admins; since 2.90 for everybody.
    #[serde(rename = "OS-EXT-SRV-ATTR:hostname", skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(flatten)]
    attributes_since_2_3: Option<AttributesSince2_3>,
    #[serde(rename = "OS-EXT-STS:task_state")]
    task_state: Option<&'static str>,
    #[serde(rename = "OS-EXT-STS:vm_state")]
    vm_state: &'static str,
    #[serde(rename = "OS-EXT-STS:power_state")]
    power_state: i16,
    #[serde(rename = "os-extended-volumes:volumes_attached")]
    volumes_attached: [Nothing; 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_status: Option<&'static str>,
    /// Since 2.19; we know of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Value>,
    /// Since 2.26.
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a [String]>,
    /// Since 2.63; we know of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted_image_certificates: Option<Value>,
    /// Since 2.71, in the answer for one server.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_groups: Option<&'a [Uuid]>,
    /// Since 2.73.
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_reason: Option<Value>,
    /// Since 2.96.
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_availability_zone: Option<Value>,
    /// Since 2.100; servers that came from the hosts have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduler_hints: Option<Nothing>,
}

/// `{}`
#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct AttributesSince2_3 {
    #[serde(rename = "OS-EXT-SRV-ATTR:kernel_id")]
    kernel_id: &'static str,
    #[serde(rename = "OS-EXT-SRV-ATTR:launch_index")]
    launch_index: i32,
    #[serde(rename = "OS-EXT-SRV-ATTR:ramdisk_id")]
    ramdisk_id: &'static str,
    #[serde(rename = "OS-EXT-SRV-ATTR:reservation_id")]
    reservation_id: &'static str,
    #[serde(rename = "OS-EXT-SRV-ATTR:root_device_name")]
    root_device_name: Option<&'static str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:user_data")]
    user_data: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum FlavorView<'a> {
    /// Before 2.47.
    Linked { id: &'a str, links: [Link; 1] },
    /// Since 2.47.
    Embedded { vcpus: i32, ram: i32, disk: i32, ephemeral: i32, swap: i32, original_name: &'a str, extra_specs: Nothing },
}

impl<'a> FlavorView<'a> {
    fn of(flavor: &'a Flavor, call: &Call) -> Self {
        if call.version < v2(47) {
            return Self::Linked { id: &flavor.name, links: [call.links.bookmark("flavors", &flavor.name)] };
        }
        Self::Embedded {
            vcpus: flavor.vcpus,
            ram: flavor.memory_mb,
            disk: flavor.root_gb,
            ephemeral: flavor.ephemeral_gb,
            swap: flavor.swap_mb,
            original_name: &flavor.name,
            extra_specs: Nothing {},
        }
    }
}

#[derive(Serialize)]
struct FaultView<'a> {
    code: i32,
    created: String,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a str>,
}

impl<'a> FaultView<'a> {
    fn of(fault: &'a ServerFault, visible: &Visible) -> Self {
        Self {
            code: fault.code,
            created: tsz(fault.created_at),
            message: &fault.message,
            details: fault.details.as_deref().filter(|_| visible.all_faults || fault.code != 500),
        }
    }
}

/// The whole server. `alone`: it is the answer for one server.
pub(super) fn full<'a>(server: &'a Server, call: &Call, visible: &Visible, beside: &'a Beside, alone: bool) -> Full<'a> {
    let status = ServerStatus::of(server.vm_state, server.task_state);
    let extended = visible.extended_attributes;
    let since = |minor: u16| call.version >= v2(minor);
    let unknown = |minor: u16| since(minor).then_some(Value::Null);
    Full {
        id: server.uuid,
        name: &server.display_name,
        status,
        tenant_id: &server.project_id,
        user_id: &server.user_id,
        metadata: &server.metadata,
        host_id: host_id(&server.project_id, server.host.as_str()),
        image: "",
        flavor: FlavorView::of(&server.flavor, call),
        created: tsz(server.created_at),
        updated: tsz(server.updated_at),
        addresses: Nothing {},
        access_ip_v4: "",
        access_ip_v6: "",
        links: call.links.of("servers", &server.uuid.to_string()),
        disk_config: "MANUAL",
        fault: beside.faults.get(&server.uuid.0).filter(|_| status.has_fault()).map(|fault| FaultView::of(fault, visible)),
        progress: status.has_progress().then_some(server.progress),
        availability_zone: beside.zones.of_host(server.host.as_str()),
        config_drive: "",
        key_name: None,
        launched_at: ts(server.launched_at),
        terminated_at: server.deleted_at.map(ts),
        host: extended.then_some(server.host.as_str()),
        hypervisor_hostname: extended.then_some(&*server.node),
        instance_name: extended.then_some(&*server.domain_name),
        hostname: (since(90) || (extended && since(3))).then_some(&*server.hostname),
        attributes_since_2_3: (extended && since(3)).then_some(AttributesSince2_3 {
            kernel_id: "",
            launch_index: 0,
            ramdisk_id: "",
            reservation_id: "",
            root_device_name: None,
            user_data: None,
        }),
        task_state: server.task_state.map(drover_common::server::TaskState::as_str),
        vm_state: server.vm_state.as_str(),
        power_state: server.power_state.code(),
        volumes_attached: [],
        locked: since(9).then_some(server.locked),
        host_status: (since(16) && visible.host_status).then(|| host_status(beside.services.get(server.host.as_str()))),
        description: unknown(19),
        tags: since(26).then_some(&*server.tags),
        trusted_image_certificates: unknown(63),
        server_groups: (alone && since(71)).then_some(&*beside.server_groups),
        pinned_availability_zone: since(96).then(|| Value::from(server.pinned_availability_zone.clone())),
        scheduler_hints: since(100).then_some(Nothing {}),
        locked_reason: since(73).then(|| Value::from(server.locked_reason.clone())),
    }
}

/// What owners see instead of their host's name: the same for two servers of a project on one host, and tells nothing else.
pub(crate) fn host_id(project: &str, host: &str) -> String {
    use std::fmt::Write;
    let digest = Sha224::new().chain_update(project).chain_update(host).finalize();
    digest.iter().fold(String::with_capacity(56), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        text
    })
}

/// Nova's order of looking: an operator's word before the heartbeat.
const fn host_status(service: Option<&Service>) -> &'static str {
    match service {
        None => "UNKNOWN",
        Some(service) if service.forced_down => "DOWN",
        Some(service) if service.disabled => "MAINTENANCE",
        Some(service) if service.up => "UP",
        Some(_) => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_id_is_the_sha224_of_project_and_host() {
        // printf 'p1h1' | sha224sum
        assert_eq!(host_id("p1", "h1"), "4316935a297e173bcced0ce7dc859e04a1a7b7a6272bb76ddc10bdca");
    }
}
