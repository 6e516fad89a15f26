//! The outbox's sweep: publishes what an API process promised and did not live to publish. Safe to run twice and side by side.

use std::time::Duration;

use drover_common::bus::Address;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::ToConductor;
use drover_store::{StoreError, commit, outbox};
use tracing::{info, warn};

use crate::Conductor;

/// Who wrote a message publishes it at once; what is older was left behind.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(2);
const BATCH: i64 = 100;
/// A broker that works confirms within milliseconds.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);
/// Published messages that one sweep forgets at most.
const PURGE_BATCH: i64 = 5000;
/// Published rows are kept this long, for people who look for them.
const KEEP: Duration = Duration::from_hours(24);

impl Conductor {
    /// Publishes what is left over; returns how many.
    pub(crate) async fn publish_left_over(&self) -> Result<usize, StoreError> {
        let mut tx = self.store.begin().await?;
        let promised = outbox::left_over(&mut tx, LEFT_OVER_AFTER, BATCH).await?;
        let mut published = 0;
        for message in promised {
            let (Ok(address), Ok(envelope)) =
                (message.address.parse::<Address>(), serde_json::from_value::<Envelope<ToConductor>>(message.envelope.clone()))
            else {
                warn!(outbox.id = message.id, address = message.address, "promised message makes no sense; put away");
                outbox::mark_published(&mut tx, message.id).await?;
                continue;
            };
            // A broker that blocks publishers (a memory alarm) must not keep the transaction open.
            let Ok(sent) = tokio::time::timeout(CONFIRMED_WITHIN, self.bus.cast(&address, &envelope)).await else {
                warn!(outbox.id = message.id, "promised message not confirmed by the broker; tried again");
                break;
            };
            match sent {
                Ok(()) => {
                    outbox::mark_published(&mut tx, message.id).await?;
                    published += 1;
                }
                Err(error) => warn!(outbox.id = message.id, error = %error, "promised message not published; tried again"),
            }
        }
        outbox::purge(&mut tx, KEEP, PURGE_BATCH).await?;
        commit(tx).await?;
        if published > 0 {
            info!(published, "promised messages published");
        }
        Ok(published)
    }
}
