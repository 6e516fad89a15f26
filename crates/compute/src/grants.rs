//! Leave for what cannot be taken back: asked immediately before, answered from the migration's row.

use std::time::Duration;

use drover_common::bus::{Address, CallError};
use drover_common::fault::{Fault, FaultClass};
use drover_common::ids::MigrationId;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{Authority, GrantKind, GrantRequest, Granted, OfAttempt, ToConductor};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::debug;

use crate::context::Context;

/// One conductor may be about to die with the question; then another is asked.
const WITHIN: Duration = Duration::from_secs(5);
/// How long it is asked again while nothing is known.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries when not even the question got away.
const PAUSE: Duration = Duration::from_millis(250);

/// Why there is no leave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// The row says no.
    #[error(transparent)]
    Refused(Fault),
    /// Nobody answered: nothing may be done, and nothing is known of what the row says.
    #[error("no conductor answered within {} s: {last}", PATIENCE.as_secs())]
    NoAnswer {
        /// The last try's failure.
        last: CallError,
    },
    /// The agent was told to stop meanwhile.
    #[error("the agent is stopping")]
    Stopping,
}

impl NotGranted {
    /// What a conductor that waits for a step is told.
    pub fn into_fault(self) -> Fault {
        match self {
            Self::Refused(fault) => fault,
            Self::NoAnswer { .. } | Self::Stopping => Fault::migration_error(self),
        }
    }
}

/// Asks for leave by right of an attempt.
pub async fn ask(ctx: &Context, of: OfAttempt, kind: GrantKind) -> Result<Granted, NotGranted> {
    let authority = Authority::Migration { attempt: of.attempt };
    ask_by(ctx, of.migration, authority, kind).await
}

/// The same by any right.
pub async fn ask_by(ctx: &Context, migration: MigrationId, authority: Authority, kind: GrantKind) -> Result<Granted, NotGranted> {
    ask_for(ctx, ToConductor::Grant(GrantRequest { migration, authority, kind, incarnation: ctx.incarnation })).await
}

/// Asks a question about leave, for as long as nobody says yes or no.
pub async fn ask_for<R: DeserializeOwned>(ctx: &Context, message: ToConductor) -> Result<R, NotGranted> {
    let asked = ctx.life.stop.run_until_cancelled(ask_until_answered(ctx, message)).await;
    asked.unwrap_or(Err(NotGranted::Stopping))
}

async fn ask_until_answered<R: DeserializeOwned>(ctx: &Context, message: ToConductor) -> Result<R, NotGranted> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let question = Envelope::new(message.clone());
        let last = match ctx.bus.call(&Address::Conductor, &question, WITHIN).await {
            Ok(granted) => return Ok(granted),
            // "Unexpected" is a conductor that lost its database, "UnsupportedVersion" one of an older release, which does not know
            // the question: neither says anything about the row.
            Err(CallError::Fault(fault)) if !matches!(fault.class, FaultClass::Unexpected | FaultClass::UnsupportedVersion) => {
                return Err(NotGranted::Refused(fault));
            }
            Err(error) => error,
        };
        debug!(kind = question.message.name(), error = %last, "leave not answered");
        if Instant::now() + PAUSE >= deadline {
            return Err(NotGranted::NoAnswer { last });
        }
        tokio::time::sleep(PAUSE).await;
    }
}
