//! Accepting power actions.
//!
//! ```text
//! accept(): one transaction
//!   servers.task_state   NULL -> the action's   compare-and-swap, also on vm_state; a delete takes the server from anybody
//!   instance_actions     pause, stop, …         under the request's id
//!   power_actions        a new row              the unique indexes allow one open action a server, whatever task_state says
//!   migrations           abort_requested        a delete ends the migration of the server, and waits for its end
//!   outbox               wake_power
//!   audit                the same name
//! commit, then publish
//! ```

use drover_common::ids::{PowerActionId, ServerId};
use drover_common::power::PowerAction;
use drover_common::rpc::latest::ToConductor;
use drover_store::power::NewPower;
use drover_store::{StoreError, Transaction, actions, audit, commit, migrations, power, servers};

use super::migrations::entry;
use super::{busy, outbox};
use crate::context::Asked;
use crate::error::ApiError;
use crate::servers::state::Verb;
use crate::state::AppState;

/// Makes the action durable and ends the transaction, or says who was first. A server that is being deleted may be deleted again:
/// nothing more is done.
pub(crate) async fn accept(
    app: &AppState,
    mut tx: Transaction,
    asked: &Asked,
    id: ServerId,
    action: PowerAction,
    verb: Verb,
) -> Result<(), ApiError> {
    let from = action.rule().from;
    if action.waits_for_others()
        && let Some(migration) = migrations::open_of_server(&mut tx, id).await?
    {
        // Its row before the server's, as the migration's own end takes them.
        migrations::request_abort(&mut tx, migration.id, &asked.caller.user_id).await?;
    }
    // The row's lock is held from here on: a migration that begins or a power action waits for it, and sees this one.
    let Some(server) = servers::claim_for(&mut tx, id, action).await? else {
        return Err(busy::refusal(&mut tx, id, from, verb).await?);
    };
    let migration = migrations::open_of_server(&mut tx, id).await?;
    let under_way = power::open_of_server(&mut tx, id).await?;
    if action.waits_for_others() {
        if under_way.iter().any(|other| other.action == action) {
            return Ok(commit(tx).await?);
        }
    } else if migration.is_some() || !under_way.is_empty() {
        drop(tx); // Nothing of the claim is kept.
        return Err(busy::refusal(&mut *app.store().connection().await?, id, from, verb).await?);
    }
    let power_action = insert(&mut tx, asked, id, action).await?;
    let mut promised = vec![outbox::promise(&mut tx, asked.envelope(ToConductor::WakePower { power_action })).await?];
    if let Some(migration) = &migration {
        migrations::request_abort(&mut tx, migration.id, &asked.caller.user_id).await?;
        promised.push(outbox::promise(&mut tx, asked.envelope(ToConductor::Wake { migration: migration.id })).await?);
    }
    let target = format!("server {id}");
    let details = migration.map_or_else(
        || format!("{action} on {}", server.host),
        |migration| format!("{action} on {}, after migration {}", server.host, migration.id),
    );
    audit::write(&mut tx, entry(asked, action.rule().name, &target, Some(&details))).await?;
    commit(tx).await?;
    for message in promised {
        outbox::publish(app, message);
    }
    tracing::info!(power.id = %power_action, server.id = %id, host = %server.host, action = %action, "power action accepted");
    Ok(())
}

async fn insert(tx: &mut Transaction, asked: &Asked, server: ServerId, action: PowerAction) -> Result<PowerActionId, StoreError> {
    let (caller, request_id) = (&asked.caller, &asked.request_id);
    let (user_id, project_id) = (caller.user_id.as_str(), caller.project_id.as_str());
    let instance_action = actions::start(tx, server, action.rule().name, request_id, user_id, project_id).await?;
    power::insert(tx, NewPower { server, action, instance_action, user_id, project_id, request_id }).await
}
