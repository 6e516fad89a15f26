//! Where the facts do not say whose copy the guest is: nothing is destroyed, a finding is raised, an operator chooses.

use std::sync::Arc;
use std::time::Duration;

use drover_common::rpc::latest::ToCompute;
use drover_store::findings::{FindingKind, raise};
use drover_store::migrations::Migration;
use drover_store::{StoreError, commit};
use tracing::{info, warn};

use super::start::{is_unreachable, of_attempt};
use crate::drive::Step;
use crate::recovery::plan::{Facts, Keep};
use crate::{Conductor, metrics};

/// When it is looked at again.
const ASK_AGAIN: Duration = Duration::from_secs(3);

impl Conductor {
    /// Both hosts run the guest. The destination's copy is stopped, since its finish was never confirmed; neither is destroyed.
    pub(crate) async fn conflict(self: &Arc<Self>, row: &Migration, suspend: bool) -> Result<Step, StoreError> {
        let Some(destination) = row.destination.clone() else {
            return Ok(Step::Changed);
        };
        let details = format!(
            "both {} and {destination} have an active copy of the guest after migration {}; the one on {destination} is stopped. \
             Look at both, then choose with `drover server keep {} HOST`.",
            row.source, row.id, row.server
        );
        let mut tx = self.store.begin().await?;
        if raise(&mut tx, FindingKind::OwnershipConflict, row.server, &destination, &details).await? {
            metrics::found(FindingKind::OwnershipConflict);
            warn!(destination = %destination, "ownership conflict: {details}");
        }
        commit(tx).await?;
        if suspend {
            let message = ToCompute::SuspendGuest(of_attempt(row));
            let stopped =
                self.agents.call::<()>(&destination, message, Some(&row.request_id), self.settings.rpc_response_timeout).await;
            if let Err(fault) = stopped {
                warn!(error = %fault, destination = %destination, unreachable = is_unreachable(&fault), "copy not stopped; tried again");
            }
        }
        Ok(Step::Wait(format!("an operator: {details}"), ASK_AGAIN))
    }

    /// Nobody can tell where the guest is whole.
    pub(crate) async fn undecidable(self: &Arc<Self>, row: &Migration, why: &str) -> Result<Step, StoreError> {
        let mut conn = self.store.connection().await?;
        let host = row.destination.as_ref().unwrap_or(&row.source);
        if raise(&mut conn, FindingKind::Undecidable, row.server, host, why).await? {
            metrics::found(FindingKind::Undecidable);
            warn!(why, "undecidable");
        }
        Ok(Step::Wait(format!("it to become clear, or an operator: {why}"), ASK_AGAIN))
    }

    /// Removes the copy that an operator did not choose.
    pub(crate) async fn discard(self: &Arc<Self>, row: &Migration, keep: Keep) -> Result<Step, StoreError> {
        let Some(destination) = &row.destination else { return Ok(Step::Changed) };
        let other = match keep {
            Keep::Source => destination,
            Keep::Destination => &row.source,
        };
        let message = ToCompute::DiscardGuest(of_attempt(row));
        match self.agents.call::<()>(other, message, Some(&row.request_id), self.settings.rpc_response_timeout).await {
            Ok(()) => {
                info!(host = %other, "the copy that was not chosen is removed");
                Ok(Step::Facts(Facts::NONE))
            }
            Err(fault) => Ok(Step::Wait(format!("{other} to remove its copy, which was not chosen: {fault}"), ASK_AGAIN)),
        }
    }
}
