//! The sweep: rows whose lease or deadline has passed, because whoever drove them died or what they wait for never came.

use std::sync::Arc;

use drover_common::telemetry;
use drover_store::migrations::lease;
use tracing::{info, warn};

use crate::Conductor;

const BATCH: i64 = 200;

impl Conductor {
    /// Drives every row that is due, gives free slots to those who wait for them, and shares out the links.
    pub(crate) async fn sweep_rows(self: &Arc<Self>) {
        let due = async {
            let mut conn = self.store.connection().await?;
            lease::due(&mut conn, BATCH).await
        };
        match due.await {
            Ok(ids) => {
                for id in ids {
                    info!(migration.id = %id, "due: taken up by the sweep");
                    self.start_drive(id, None).await;
                }
            }
            Err(error) => warn!(error = telemetry::chain(&error), "rows not swept; the next sweep tries again"),
        }
        self.slot_freed();
        self.links_changed();
    }
}
