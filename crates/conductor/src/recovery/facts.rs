//! Asking the hosts what they see of a guest.

use std::time::Duration;

use drover_common::fault::FaultClass;
use drover_common::ids::HostName;
use drover_common::rpc::latest::{HostFacts, OfAttempt, ToCompute};
use drover_store::migrations::Migration;

use super::plan::{Facts, Known, View};
use crate::Conductor;

/// An agent has the answer at hand; one that needs longer is as good as silent, and is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

impl Conductor {
    /// Asks the source, and the destination if wanted, about the row as it is now. What is known already is kept.
    pub(crate) async fn ask(&self, row: &Migration, known: &Facts, destination: bool, ordered: bool) -> Facts {
        let of = OfAttempt { migration: row.id, attempt: View::of(row).attempt, server: row.server };
        let ask_destination = async {
            match &row.destination {
                Some(host) if destination => self.ask_one(host, of).await,
                _ => known.destination.clone(),
            }
        };
        if ordered {
            let before = self.ask_one(&row.source, of).await;
            let destination = ask_destination.await;
            let source = self.ask_one(&row.source, of).await;
            let ordered = before == source; // It moved in between: the answers do not fit together, so they prove nothing.
            return Facts { source, destination, ordered };
        }
        let ask_source = async {
            match &known.source {
                Known::Seen(_) => known.source.clone(),
                _ => self.ask_one(&row.source, of).await,
            }
        };
        let (source, destination) = tokio::join!(ask_source, ask_destination);
        Facts { source, destination, ordered: false }
    }

    /// Asks one host.
    pub(crate) async fn ask_one(&self, host: &HostName, of: OfAttempt) -> Known {
        match self.agents.call::<HostFacts>(host, ToCompute::GetFacts(of), None, ANSWER_WITHIN).await {
            Ok(facts) => Known::Seen(facts),
            Err(fault) if fault.class == FaultClass::ComputeServiceUnavailable && self.is_forced_down(host).await => Known::Gone,
            Err(fault) => Known::Unknown(fault.message),
        }
    }

    /// Whether an operator asserts that the host is fenced. A database that does not answer asserts nothing.
    pub(crate) async fn is_forced_down(&self, host: &HostName) -> bool {
        let asked = async {
            let mut conn = self.store.connection().await?;
            drover_store::services::is_forced_down(&mut conn, host).await
        };
        asked.await.unwrap_or(false)
    }
}
