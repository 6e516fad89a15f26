//! Paying clean-up debts when their hosts are back.

use drover_common::ids::HostName;
use drover_common::telemetry;
use drover_store::StoreError;
use drover_store::debts::{self, Debt};
use futures::StreamExt;
use tracing::warn;

use crate::Conductor;

/// Debts that one look takes up: those that were tried longest ago.
const BATCH: i64 = 200;
/// Debts that are paid at a time.
const AT_ONCE: usize = 8;

impl Conductor {
    /// Lets hosts (one, or all that answer) remove what closed migrations left there.
    pub(crate) async fn pay_debts(&self, host: Option<&HostName>) {
        let open = async {
            let mut conn = self.store.connection().await?;
            debts::open(&mut conn, host, BATCH).await
        };
        let open = match open.await {
            Ok(open) => open,
            Err(error) => return warn!(error = telemetry::chain(&error), "debts not read"),
        };
        let pay = async |debt: Result<Debt, StoreError>| {
            let paid = match debt {
                Ok(debt) => self.pay(&debt).await.map(drop),
                Err(unreadable) => Err(unreadable),
            };
            if let Err(error) = paid {
                warn!(error = telemetry::chain(&error), "debt not settled in the books; tried again");
            }
        };
        // A host that does not answer keeps its own debts waiting, not those of others.
        futures::stream::iter(open).for_each_concurrent(AT_ONCE, pay).await;
    }
}
