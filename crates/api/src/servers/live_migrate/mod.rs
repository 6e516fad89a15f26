//! `os-migrateLive`: whatever the microversion, one wish comes of it.
//!
//! The checks stand in Nova's order; the first that fails answers: the body, the server, the policy, a force without a host, the
//! lock, `vm_state`, `task_state`, the host's existence. After them [`crate::app::migrations::accept`] decides.
//!
//! Below 2.34 the answer waits for the prechecks and tells their outcome ([`outcome`]); from 2.34 on it is 202 at once.

mod legacy;
mod outcome;
pub(super) mod schema;

use drover_common::fault::Fault;
use drover_common::ids::HostName;
use drover_store::{Transaction, hosts};

use super::lookup;
use super::state::Verb;
use crate::app::migrations::{self, LiveMigrate};
use crate::app::prechecks;
use crate::context::Call;
use crate::error::ApiError;
use crate::extract::Body;
use crate::microversion::v2;
use crate::pipeline::mount::Mount;
use crate::policy::Rule;
use crate::state::AppState;

/// What a body says, in any version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arguments {
    /// Where to; not necessarily a possible name.
    host: Option<String>,
    /// None: each disk decides for itself.
    block_migration: Option<bool>,
    disk_over_commit: Option<bool>,
    force: bool,
}

/// Does it.
pub(super) async fn run(app: &AppState, call: &Call, id: &str, body: &Body) -> Result<(), ApiError> {
    let arguments = match call.mount {
        Mount::Current => schema::parse(call.version, body)?,
        Mount::Legacy => legacy::parse(&body.value)?,
    };
    let done = migrate(app, call, id, &arguments).await;
    match call.mount {
        Mount::Current => done,
        Mount::Legacy => done.map_err(|error| legacy::hide_unexpected(error, id, arguments.host.as_deref())),
    }
}

async fn migrate(app: &AppState, call: &Call, id: &str, arguments: &Arguments) -> Result<(), ApiError> {
    let verb = Verb { name: "os-migrateLive", mount: call.mount };
    let mut tx = app.store().begin().await?;
    let server = lookup::live(&mut tx, call.caller(), id).await?;
    let rule = if arguments.host.is_some() { Rule::MigrateLiveHost } else { Rule::MigrateLive };
    app.policy().enforce(rule, call.caller(), &server.project_id)?;
    if arguments.force && arguments.host.is_none() {
        return Err(ApiError::bad_request("Can't force to a non-provided destination"));
    }
    if server.locked && !call.caller().is_admin() {
        return Err(ApiError::locked(server.uuid));
    }
    migrations::check_free(&mut tx, &server, verb).await?;
    let wish = LiveMigrate {
        host: known_host(&mut tx, arguments.host.as_deref()).await?,
        block_migration: arguments.block_migration,
        disk_over_commit: arguments.disk_over_commit,
        skip_scheduler: arguments.host.is_some() && (call.version < v2(30) || arguments.force),
        wait: call.version < v2(34),
    };
    match migrations::accept(app, tx, &call.asked, server.uuid, &wish, verb).await? {
        None => Ok(()),
        Some(expected) => prechecks::passed(app, expected).await?.map_err(|fault| outcome::told(fault, call.mount)),
    }
}

/// The host, if it is one of ours: checked in all microversions, before anything is changed.
async fn known_host(tx: &mut Transaction, name: Option<&str>) -> Result<Option<HostName>, ApiError> {
    let Some(name) = name else { return Ok(None) };
    let unknown = || ApiError::Refused(Fault::compute_host_not_found(name));
    let host = HostName::new(name).map_err(|_| unknown())?; // What cannot be a name is not the name of a host.
    if hosts::exists(tx, &host).await? { Ok(Some(host)) } else { Err(unknown()) }
}
