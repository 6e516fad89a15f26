//! Values for the unit tests of this crate.

use std::time::Duration;

use chrono::DateTime;
use drover_common::ids::{Attempt, HostName, Incarnation, MigrationId, RequestId, Revision, ServerId};
use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::{DomainReport, GuestState};
use drover_common::server::{Flavor, PowerState, VmState};
use drover_store::migrations::Migration;
use drover_store::servers::Server;
use uuid::Uuid;

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn flavor() -> Flavor {
    Flavor { name: "small".to_owned(), vcpus: 1, memory_mb: 1024, root_gb: 1, ephemeral_gb: 0, swap_mb: 0 }
}

/// A migration in this status, at attempt 3, its destination ready.
pub(crate) fn migration(status: MigrationStatus, source: &str, destination: Option<&str>) -> Migration {
    Migration {
        id: MigrationId(1),
        uuid: Uuid::from_u128(1),
        server: ServerId(Uuid::from_u128(2)),
        migration_type: "live-migration".to_owned(),
        status,
        requested_host: None,
        skip_scheduler: false,
        block_migration: None,
        disk_over_commit: None,
        user_id: "user".to_owned(),
        project_id: "project".to_owned(),
        request_id: RequestId::random(),
        action: 1,
        reply_to: None,
        abort_requested_by: None,
        force_complete_requested_by: None,
        keep: None,
        source: host(source),
        source_node: None,
        destination: destination.map(host),
        dest_node: None,
        attempt: Attempt(3),
        revision: Revision(5),
        driven_by: None,
        wanted: 0,
        look_again_in: Duration::ZERO,
        retries: 0,
        recoveries: 0,
        refusals: Vec::new(),
        data: None,
        pre_done: true,
        casts: 1,
        start_incarnation: None,
        ending: None,
        waiting_for: None,
        priority: 0,
        queued_at: None,
        slot_hosts: None,
        bandwidth_mib: None,
        fault: None,
        counters: [[None; 3]; 2],
        progress: None,
        job_result: None,
        announced_after_ms: None,
        created_at: DateTime::UNIX_EPOCH,
        claimed_at: None,
        started_at: None,
        switched_over_at: None,
        ended_at: None,
        updated_at: None,
        traceparent: None,
    }
}

/// An active server on this host, observed once.
pub(crate) fn server(on: &str) -> Server {
    Server {
        uuid: ServerId(Uuid::from_u128(2)),
        id: 1,
        display_name: "web".to_owned(),
        domain_name: "instance-1".to_owned(),
        project_id: "project".to_owned(),
        user_id: "user".to_owned(),
        host: host(on),
        node: on.to_owned(),
        vm_state: VmState::Active,
        task_state: None,
        power_state: PowerState::Running,
        progress: 0,
        flavor: flavor(),
        persistent: true,
        locked: false,
        locked_by: None,
        locked_reason: None,
        metadata: serde_json::Value::Null,
        observed: (Incarnation(Uuid::from_u128(3)), 4),
        launched_at: DateTime::UNIX_EPOCH,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
        deleted_at: None,
        hostname: "web".to_owned(),
        tags: Vec::new(),
        pinned_availability_zone: None,
    }
}

/// That server's domain in this state.
pub(crate) fn domain(state: GuestState) -> DomainReport {
    DomainReport {
        server: ServerId(Uuid::from_u128(2)),
        domain_name: "instance-1".to_owned(),
        display_name: "web".to_owned(),
        state,
        job: None,
        persistent: true,
        marker: None,
        flavor: flavor(),
        owner: None,
    }
}
