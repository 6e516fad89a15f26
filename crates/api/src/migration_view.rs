//! Migrations as Nova shows them: the fields that `/servers/{id}/migrations` and `/os-migrations` share.

use drover_common::ids::{HostName, MigrationId};
use drover_store::migrations::Migration;
use serde::Serialize;
use uuid::Uuid;

use crate::microversion::{Microversion, v2};
use crate::time::ts;

/// Where from and where to. Without permission every field is null.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Hosts<'a> {
    source_compute: Option<&'a str>,
    source_node: Option<&'a str>,
    dest_compute: Option<&'a str>,
    dest_node: Option<&'a str>,
    /// An address for cold migrations; of live ones Nova never says it.
    dest_host: Option<&'a str>,
}

impl<'a> Hosts<'a> {
    pub(crate) fn of(migration: &'a Migration, visible: bool) -> Self {
        if !visible {
            return Self::default();
        }
        Self {
            source_compute: Some(migration.source.as_str()),
            source_node: migration.source_node.as_deref(),
            dest_compute: migration.destination.as_ref().map(HostName::as_str),
            dest_node: migration.dest_node.as_deref(),
            dest_host: None,
        }
    }
}

/// What both resources show of every migration.
#[derive(Debug, Serialize)]
pub(crate) struct Common<'a> {
    id: MigrationId,
    status: &'static str,
    created_at: String,
    updated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<&'a str>,
    #[serde(flatten)]
    hosts: Hosts<'a>,
}

impl<'a> Common<'a> {
    pub(crate) fn of(migration: &'a Migration, version: Microversion, hosts_visible: bool) -> Self {
        let requester = version >= v2(80);
        Self {
            id: migration.id,
            status: migration.status.in_api(),
            created_at: ts(migration.created_at),
            updated_at: migration.updated_at.map(ts),
            uuid: (version >= v2(59)).then_some(migration.uuid),
            user_id: requester.then_some(&*migration.user_id),
            project_id: requester.then_some(&*migration.project_id),
            hosts: Hosts::of(migration, hosts_visible),
        }
    }
}
