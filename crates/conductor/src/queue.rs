//! The queue: migrations that passed their checks and wait for a slot. They hold nothing; an event that frees a slot takes up the
//! first ones, which are then checked again from the start. Who is first says [`drover_store::line`].

use std::sync::Arc;
use std::time::Duration;

use drover_common::migration::Event;
use drover_common::telemetry;
use drover_store::migrations::{Migration, advance};
use drover_store::{StoreError, commit, line};
use tracing::warn;

use crate::drive::Step;
use crate::{Conductor, metrics};

/// When a queued row is looked at although no slot got free: the net below the events.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

impl Conductor {
    /// Starts a queued migration again from its checks, if its turn has come.
    pub(crate) async fn try_leave_queue(&self, row: &Migration) -> Result<Step, StoreError> {
        let mut tx = self.store.begin().await?;
        let turn = line::whose_turn(&mut tx, &self.settings.limits).await?;
        if !turn.contains(&row.id) {
            return Ok(Step::Wait(row.waiting_for.clone().unwrap_or_else(|| "a free slot".to_owned()), LOOK_AGAIN));
        }
        let after = advance(&mut tx, row, Event::SlotFreed, |_| ()).await?;
        commit(tx).await?;
        if let Some(after) = &after {
            metrics::left_queue(row, after);
        }
        Ok(Step::written(after))
    }

    /// A slot got free: wakes those whose turn it is.
    pub(crate) fn slot_freed(self: &Arc<Self>) {
        let conductor = Arc::clone(self);
        self.life.spawn(async move {
            let turn = async {
                let mut conn = conductor.store.connection().await?;
                line::whose_turn(&mut conn, &conductor.settings.limits).await
            };
            match turn.await {
                Ok(ids) => {
                    for id in ids {
                        conductor.start_drive(id, None).await;
                    }
                }
                Err(error) => warn!(error = telemetry::chain(&error), "queue not looked at; the sweep does it"),
            }
        });
    }
}
