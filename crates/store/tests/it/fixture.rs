//! Rows for tests, made by the store's own verbs.

use drover_common::host::HostInventory;
use drover_common::ids::{HostName, Incarnation, MigrationId, RequestId, ServerId};
use drover_common::rpc::latest::{DomainReport, GuestState};
use drover_common::server::{Flavor, TaskState, VmState};
use drover_store::migrations::{Migration, NewMigration};
use drover_store::servers::Observer;
use drover_store::{StoreError, actions, hosts, migrations, servers, services};
use sqlx::PgConnection;
use uuid::Uuid;

pub(crate) fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

pub(crate) fn inventory(host_uuid: Uuid) -> HostInventory {
    HostInventory {
        host_uuid,
        hypervisor_hostname: "node".to_owned(),
        hypervisor_type: "QEMU".to_owned(),
        hypervisor_version: 10_000_002,
        libvirt_version: 11_003_000,
        host_ip: "192.0.2.1".to_owned(),
        vcpus: 8,
        memory_mb: 8192,
        local_gb: 100,
        free_disk_gb: 90,
        cpu_info: serde_json::json!({}),
        link_bandwidth_mib: 0,
        migration_bandwidth_mib: 0,
    }
}

/// A host that is up; returns its agent's life.
pub(crate) async fn add_host(conn: &mut PgConnection, name: &str) -> Incarnation {
    let life = Incarnation::random();
    let service = services::seen(conn, &host(name), services::COMPUTE).await.unwrap();
    hosts::host_up(conn, &host(name), service, life, &inventory(Uuid::new_v4())).await.unwrap().unwrap();
    life
}

pub(crate) fn domain(server: ServerId) -> DomainReport {
    DomainReport {
        server,
        domain_name: "instance-1".to_owned(),
        display_name: "web".to_owned(),
        state: GuestState::Running,
        job: None,
        persistent: true,
        marker: None,
        flavor: Flavor { name: "small".to_owned(), vcpus: 1, memory_mb: 1024, root_gb: 1, ephemeral_gb: 0, swap_mb: 0 },
        owner: None,
    }
}

/// A running server on a host.
pub(crate) async fn add_server(conn: &mut PgConnection, on: &str) -> ServerId {
    let id = ServerId::random();
    let name = host(on);
    let observer = Observer { host: &name, node: "node", incarnation: Incarnation::random(), sequence: 1 };
    servers::adopt(conn, observer, &domain(id), VmState::Active, ("project", "user")).await.unwrap();
    id
}

/// Does what the API does on acceptance.
pub(crate) async fn accept(conn: &mut PgConnection, server: ServerId, source: &str) -> Result<MigrationId, StoreError> {
    let request_id = RequestId::random();
    let action = actions::start(conn, server, actions::names::LIVE_MIGRATION, &request_id, "user", "project").await?;
    let new = NewMigration {
        server,
        source: host(source),
        requested_host: None,
        skip_scheduler: false,
        block_migration: None,
        disk_over_commit: None,
        user_id: "user".to_owned(),
        project_id: "project".to_owned(),
        request_id,
        action,
        reply_to: None,
        traceparent: None,
    };
    migrations::insert(conn, &new).await
}

/// An accepted migration of a new server from `h1`.
pub(crate) async fn migration(conn: &mut PgConnection) -> Migration {
    let server = add_server(conn, "h1").await;
    assert!(servers::claim_task_state(conn, server, TaskState::Migrating).await.unwrap().is_some());
    let id = accept(conn, server, "h1").await.unwrap();
    migrations::get(conn, id).await.unwrap().unwrap()
}
