//! What a notification says: `InstanceActionPayload` 1.9, `RequestSpecPayload` 1.1 and `ComputeTaskPayload` 1.0 in oslo.messaging's envelope 2.0. Pure.
//!
//! What a libvirt domain does not know (image, addresses, keys, volumes) is null or empty, as in the API.

use chrono::{DateTime, Utc};
use drover_common::bus::Priority;
use drover_common::fault::Fault;
use drover_common::server::Flavor;
use drover_store::servers::Server;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Happened, Note, priority_of};

/// The priority, for the routing key, and the whole body.
pub(super) fn message(note: &Note, server: &Server, now: DateTime<Utc>) -> (Priority, Value) {
    let (event_type, payload) = match &note.happened {
        Happened::Step { step, phase } => (format!("instance.{}.{phase}", step.name()), instance_action(note, server)),
        Happened::SelectDestinations { phase } => (format!("scheduler.select_destinations.{phase}"), request_spec(server)),
        Happened::TaskFailed { fault } => ("compute_task.migrate_server.error".to_owned(), compute_task(server, fault)),
    };
    let priority = priority_of(&note.happened);
    let id = Uuid::new_v4();
    let message = json!({
        "message_id": id,
        "publisher_id": note.publisher,
        "event_type": event_type,
        "priority": priority.as_str().to_uppercase(),
        "payload": payload,
        "timestamp": now.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
        "_unique_id": id.simple().to_string(),
    });
    (priority, json!({"oslo.version": "2.0", "oslo.message": message.to_string()}))
}

fn object(name: &str, version: &str, data: &Value) -> Value {
    json!({"nova_object.name": name, "nova_object.namespace": "nova", "nova_object.version": version, "nova_object.data": data})
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn instance_action(note: &Note, server: &Server) -> Value {
    let data = json!({
        "uuid": server.uuid,
        "display_name": server.display_name,
        "display_description": server.display_name,
        "host_name": server.display_name,
        "host": server.host,
        "node": server.node,
        "state": server.vm_state,
        "task_state": server.task_state,
        "power_state": power_state(server),
        "progress": server.progress,
        "tenant_id": server.project_id,
        "user_id": server.user_id,
        "metadata": server.metadata,
        "locked": server.locked,
        "locked_reason": null,
        "flavor": flavor(&server.flavor),
        "created_at": time(server.created_at),
        "launched_at": time(server.launched_at),
        "updated_at": time(server.updated_at),
        "deleted_at": server.deleted_at.map(time),
        "terminated_at": server.deleted_at.map(time),
        "request_id": note.request_id,
        "action_initiator_user": note.initiator.0,
        "action_initiator_project": note.initiator.1,
        "fault": null,
        "architecture": null,
        "auto_disk_config": "AUTO",
        "availability_zone": null,
        "block_devices": [],
        "image_uuid": "",
        "ip_addresses": [],
        "kernel_id": "",
        "key_name": null,
        "os_type": null,
        "ramdisk_id": "",
        "reservation_id": "",
        "shares": [],
    });
    object("InstanceActionPayload", "1.9", &data)
}

/// Nova's names of power states in notifications (`nova/objects/fields.py`, `InstancePowerState`).
fn power_state(server: &Server) -> &'static str {
    use drover_common::server::PowerState;
    match server.power_state {
        PowerState::NoState => "pending",
        PowerState::Running => "running",
        PowerState::Paused => "paused",
        PowerState::Shutdown => "shutdown",
        PowerState::Crashed => "crashed",
        PowerState::Suspended => "suspended",
    }
}

fn flavor(flavor: &Flavor) -> Value {
    let data = json!({
        "flavorid": flavor.name,
        "name": flavor.name,
        "memory_mb": flavor.memory_mb,
        "vcpus": flavor.vcpus,
        "root_gb": flavor.root_gb,
        "ephemeral_gb": flavor.ephemeral_gb,
        "swap": flavor.swap_mb,
        "rxtx_factor": 1.0,
        "vcpu_weight": 0,
        "disabled": false,
        "is_public": true,
        "extra_specs": {},
        "projects": null,
        "description": null,
    });
    object("FlavorPayload", "1.4", &data)
}

/// What the scheduler is asked for. The server's zone, if it is pinned to one; no image: a libvirt domain does not know of any.
fn request_spec(server: &Server) -> Value {
    let data = json!({
        "instance_uuid": server.uuid,
        "project_id": server.project_id,
        "user_id": server.user_id,
        "availability_zone": server.pinned_availability_zone,
        "flavor": flavor(&server.flavor),
        "num_instances": 1,
        "image": null,
        "numa_topology": null,
        "pci_requests": null,
        "requested_destination": null,
        "retry": null,
        "limits": null,
        "instance_group": null,
        "ignore_hosts": null,
        "force_hosts": null,
        "force_nodes": null,
        "scheduler_hints": {},
        "security_groups": [],
    });
    object("RequestSpecPayload", "1.1", &data)
}

fn compute_task(server: &Server, fault: &Fault) -> Value {
    let reason = json!({
        "exception": fault.class,
        "exception_message": fault.message,
        "function_name": "migrate_server",
        "module_name": "drover_conductor",
        "traceback": fault.message,
    });
    let data = json!({
        "instance_uuid": server.uuid,
        "request_spec": request_spec(server),
        "state": server.vm_state,
        "reason": object("ExceptionPayload", "1.1", &reason),
    });
    object("ComputeTaskPayload", "1.0", &data)
}

#[cfg(test)]
mod tests {
    use drover_common::migration::MigrationStatus;

    use super::super::{Step, note};
    use super::*;
    use crate::testing::{migration, server};

    fn decoded(happened: Happened, publisher: &str) -> (Priority, Value) {
        let note = note(&migration(MigrationStatus::Running, "h1", Some("h2")), happened, publisher.to_owned());
        let (priority, body) = message(&note, &server("h1"), DateTime::UNIX_EPOCH);
        assert_eq!(body["oslo.version"], "2.0");
        (priority, serde_json::from_str(body["oslo.message"].as_str().unwrap()).unwrap())
    }

    #[test]
    fn a_step_is_told_with_the_instance_as_it_is() {
        let (priority, told) = decoded(Happened::Step { step: Step::PostDest, phase: "start" }, "nova-compute:h2");
        assert_eq!(priority, Priority::Info);
        assert_eq!(told["event_type"], "instance.live_migration_post_dest.start");
        assert_eq!((told["priority"].as_str(), told["publisher_id"].as_str()), (Some("INFO"), Some("nova-compute:h2")));
        assert_eq!(told["timestamp"], "1970-01-01 00:00:00.000000");
        assert_eq!(told["payload"]["nova_object.name"], "InstanceActionPayload");
        let data = &told["payload"]["nova_object.data"];
        assert_eq!(
            (data["host"].as_str(), data["state"].as_str(), data["power_state"].as_str()),
            (Some("h1"), Some("active"), Some("running"))
        );
        assert_eq!(data["action_initiator_user"], "user");
        assert_eq!(data["flavor"]["nova_object.data"]["memory_mb"], 1024);
    }

    #[test]
    fn the_schedulers_choice_is_told_with_what_it_was_asked_for() {
        let (priority, told) = decoded(Happened::SelectDestinations { phase: "end" }, "nova-scheduler:c1");
        assert_eq!(priority, Priority::Info);
        assert_eq!(told["event_type"], "scheduler.select_destinations.end");
        assert_eq!(told["payload"]["nova_object.name"], "RequestSpecPayload");
        let data = &told["payload"]["nova_object.data"];
        assert_eq!(data["instance_uuid"], server("h1").uuid.to_string());
        assert_eq!(data["flavor"]["nova_object.data"]["vcpus"], 1);
    }

    #[test]
    fn a_refusal_is_an_error_with_its_reason() {
        let fault = Fault::precheck("no room");
        let (priority, told) = decoded(Happened::TaskFailed { fault }, "nova-conductor:c1");
        assert_eq!(priority, Priority::Error);
        assert_eq!(
            (told["event_type"].as_str(), told["priority"].as_str()),
            (Some("compute_task.migrate_server.error"), Some("ERROR"))
        );
        let reason = &told["payload"]["nova_object.data"]["reason"]["nova_object.data"];
        assert_eq!(
            (reason["exception"].as_str(), reason["exception_message"].as_str()),
            (Some("MigrationPreCheckError"), Some("Migration pre-check error: no room"))
        );
    }
}
