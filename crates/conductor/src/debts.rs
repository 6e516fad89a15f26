//! Paying clean-up debts when their hosts are back.

use drover_common::ids::HostName;
use drover_common::telemetry;
use drover_store::debts;
use tracing::warn;

use crate::Conductor;

impl Conductor {
    /// Lets hosts (one, or all that answer) remove what closed migrations left there.
    pub(crate) async fn pay_debts(&self, host: Option<&HostName>) {
        let open = async {
            let mut conn = self.store.connection().await?;
            debts::open(&mut conn, host).await
        };
        let open = match open.await {
            Ok(open) => open,
            Err(error) => return warn!(error = telemetry::chain(&error), "debts not read"),
        };
        for debt in open {
            if let Err(error) = self.pay(&debt).await {
                warn!(error = telemetry::chain(&error), "debt not settled in the books; tried again");
            }
        }
    }
}
