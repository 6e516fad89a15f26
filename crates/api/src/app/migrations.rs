//! Accepting live migrations, and the wishes that concern one under way.
//!
//! ```text
//! accept(): one transaction
//!   servers.task_state   NULL -> migrating     compare-and-swap: of several requests exactly one gets on
//!   instance_actions     live-migration        under the request's id
//!   migrations           accepted              the unique index allows one open migration a server, whatever task_state says
//!   outbox               migrate_server        so that no broker is needed to make it durable
//!   audit                os-migrateLive
//! commit, then publish; 202 waits for neither the broker nor a conductor
//! ```
//!
//! A wish (abort, force-complete) is a column of the migration; the message that goes with it only nudges.

use drover_common::ids::{HostName, MigrationId, ServerId};
use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::{MigrateServer, ToConductor};
use drover_common::server::{TaskState, VmState};
use drover_common::telemetry;
use drover_store::actions::{self, names};
use drover_store::audit;
use drover_store::line;
use drover_store::migrations::{self, Migration, NewMigration, ONE_OPEN_PER_SERVER};
use drover_store::servers::{self, Server};
use drover_store::{StoreError, Transaction, commit, power};

use super::prechecks::Expected;
use super::{busy, outbox};
use crate::context::Asked;
use crate::error::ApiError;
use crate::metrics;
use crate::servers::state::Verb;
use crate::state::AppState;

/// What is asked for, whatever the microversion in which it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveMigrate {
    /// Where to; none: the scheduler chooses.
    pub(crate) host: Option<HostName>,
    /// Copy the disks: yes, no, or each decides for itself.
    pub(crate) block_migration: Option<bool>,
    /// Let disks be promised more than there is.
    pub(crate) disk_over_commit: Option<bool>,
    /// Take the host as it is, without asking the scheduler's filters.
    pub(crate) skip_scheduler: bool,
    /// Whether the caller waits for the prechecks.
    pub(crate) wait: bool,
}

/// The states from which a server is migrated.
const FROM: &[VmState] = &[VmState::Active, VmState::Paused];

/// Refuses a server that is not free to be migrated, as Nova does before it looks at the host. The compare-and-swap in [`accept`]
/// decides.
pub(crate) async fn check_free(tx: &mut Transaction, server: &Server, verb: Verb) -> Result<(), ApiError> {
    if FROM.contains(&server.vm_state) && server.task_state.is_none() {
        return Ok(());
    }
    Err(busy::refusal(tx, server.uuid, FROM, verb).await?)
}

/// Makes the migration durable and ends the transaction, or says who was first. Returns the wait for its prechecks, if the caller
/// waits.
pub(crate) async fn accept(
    app: &AppState,
    mut tx: Transaction,
    asked: &Asked,
    server: ServerId,
    wish: &LiveMigrate,
    verb: Verb,
) -> Result<Option<Expected>, ApiError> {
    // From here on the row as it was claimed counts: until now the server could still have moved to another host.
    let Some(server) = servers::claim_task_state(&mut tx, server, TaskState::Migrating).await? else {
        return Err(busy::refusal(&mut tx, server, FROM, verb).await?);
    };
    if !power::open_of_server(&mut tx, server.uuid).await?.is_empty() {
        drop(tx); // `os-resetState` freed the server while something was still being done to it. Nothing of the claim is kept.
        return Err(busy::refusal(&mut *app.store().connection().await?, server.uuid, FROM, verb).await?);
    }
    let id = match insert(app, &mut tx, asked, &server, wish).await {
        Ok(id) => id,
        Err(error) if error.broken_constraint() == Some(ONE_OPEN_PER_SERVER) => {
            drop(tx); // Nothing of it was kept.
            return Err(busy::refusal(&mut *app.store().connection().await?, server.uuid, FROM, verb).await?);
        }
        Err(error) => return Err(error.into()),
    };
    let message = MigrateServer { migration: id, live: true, rebuild: false, flavor: None };
    let promised = outbox::promise(&mut tx, asked.envelope(ToConductor::MigrateServer(message))).await?;
    let target = format!("server {}", server.uuid);
    let destination = wish.host.as_ref().map_or("a host of the scheduler's choice", HostName::as_str);
    let details = format!("migration {id} from {} to {destination}", server.host);
    audit::write(&mut tx, entry(asked, "os-migrateLive", &target, Some(&details))).await?;
    let expected = wish.wait.then(|| app.waiters().expect(id));
    commit(tx).await?;
    outbox::publish(app, promised);
    metrics::accepted();
    tracing::info!(migration.id = %id, server.id = %server.uuid, host = %server.host, destination, "migration accepted");
    Ok(expected)
}

async fn insert(
    app: &AppState,
    tx: &mut Transaction,
    asked: &Asked,
    server: &Server,
    wish: &LiveMigrate,
) -> Result<MigrationId, StoreError> {
    let caller = &asked.caller;
    let action =
        actions::start(tx, server.uuid, names::LIVE_MIGRATION, &asked.request_id, &caller.user_id, &caller.project_id).await?;
    let new = NewMigration {
        server: server.uuid,
        source: server.host.clone(),
        requested_host: wish.host.clone(),
        skip_scheduler: wish.skip_scheduler,
        block_migration: wish.block_migration,
        disk_over_commit: wish.disk_over_commit,
        user_id: caller.user_id.clone(),
        project_id: caller.project_id.clone(),
        request_id: asked.request_id.clone(),
        action,
        traceparent: telemetry::traceparent(),
        reply_to: wish.wait.then(|| app.bus().own_address().to_string()),
    };
    migrations::insert(tx, &new).await
}

/// Asks for the end of a migration. `Err` with the status that it has meanwhile when it cannot be aborted any more.
pub(crate) async fn request_abort(
    app: &AppState,
    asked: &Asked,
    migration: &Migration,
) -> Result<Result<(), MigrationStatus>, ApiError> {
    let mut tx = app.store().begin().await?;
    if !migrations::request_abort(&mut tx, migration.id, &asked.caller.user_id).await? {
        return Ok(Err(status_now(&mut tx, migration).await?));
    }
    record_wish(app, tx, asked, migration, names::LIVE_MIGRATION_CANCEL).await.map(Ok)
}

/// Asks for the completion of a running migration by force. `Err` with the status that it has meanwhile when it does not run.
pub(crate) async fn request_force_complete(
    app: &AppState,
    asked: &Asked,
    migration: &Migration,
) -> Result<Result<(), MigrationStatus>, ApiError> {
    let mut tx = app.store().begin().await?;
    if !migrations::request_force_complete(&mut tx, migration.id, &asked.caller.user_id).await? {
        return Ok(Err(status_now(&mut tx, migration).await?));
    }
    record_wish(app, tx, asked, migration, names::LIVE_MIGRATION_FORCE_COMPLETE).await.map(Ok)
}

/// Records an operator's choice between two copies. False when there is nothing to choose.
pub(crate) async fn request_keep(app: &AppState, asked: &Asked, migration: &Migration, host: &HostName) -> Result<bool, ApiError> {
    let mut tx = app.store().begin().await?;
    if !migrations::request_keep(&mut tx, migration.id, host, &asked.caller.user_id).await? {
        return Ok(false);
    }
    let target = format!("server {}", migration.server);
    let details = format!("migration {}: the copy on {host} is the guest", migration.id);
    audit::write(&mut tx, entry(asked, "keep", &target, Some(&details))).await?;
    let promised = outbox::promise(&mut tx, asked.envelope(ToConductor::Wake { migration: migration.id })).await?;
    commit(tx).await?;
    outbox::publish(app, promised);
    tracing::info!(migration.id = %migration.id, server.id = %migration.server, host = %host, "an operator's choice recorded");
    Ok(true)
}

/// Says how soon a migration leaves the queue. False when it is over. Nobody is woken: the next slot that gets free goes by it.
pub(crate) async fn set_priority(app: &AppState, asked: &Asked, migration: &Migration, priority: i32) -> Result<bool, ApiError> {
    let mut tx = app.store().begin().await?;
    if !line::set_priority(&mut tx, migration.id, priority).await? {
        return Ok(false);
    }
    let target = format!("server {}", migration.server);
    let details = format!("migration {}: priority {priority}, before {}", migration.id, migration.priority);
    audit::write(&mut tx, entry(asked, "priority", &target, Some(&details))).await?;
    commit(tx).await?;
    tracing::info!(migration.id = %migration.id, server.id = %migration.server, priority, "priority set");
    Ok(true)
}

async fn status_now(tx: &mut Transaction, migration: &Migration) -> Result<MigrationStatus, ApiError> {
    let now = migrations::get(tx, migration.id).await?;
    Ok(now.map_or(migration.status, |now| now.status))
}

/// The rest of the transaction that every wish is: the instance action, the line of audit, the nudge.
async fn record_wish(
    app: &AppState,
    mut tx: Transaction,
    asked: &Asked,
    migration: &Migration,
    action: &'static str,
) -> Result<(), ApiError> {
    let caller = &asked.caller;
    actions::start(&mut tx, migration.server, action, &asked.request_id, &caller.user_id, &caller.project_id).await?;
    let target = format!("server {}", migration.server);
    let details = format!("migration {}", migration.id);
    audit::write(&mut tx, entry(asked, action, &target, Some(&details))).await?;
    let wake = ToConductor::Wake { migration: migration.id };
    let promised = outbox::promise(&mut tx, asked.envelope(wake)).await?;
    commit(tx).await?;
    outbox::publish(app, promised);
    tracing::info!(migration.id = %migration.id, server.id = %migration.server, action, "wish recorded");
    Ok(())
}

/// A line of the audit trail about this request.
pub(crate) fn entry<'a>(asked: &'a Asked, action: &'a str, target: &'a str, details: Option<&'a str>) -> audit::Entry<'a> {
    audit::Entry {
        user_id: Some(&asked.caller.user_id),
        project_id: Some(&asked.caller.project_id),
        request_id: Some(asked.request_id.as_str()),
        action,
        target,
        details,
    }
}
