//! Calls to compute agents, with every way in which a call can fail told as the fault that it means.
//!
//! A host that does not answer is unavailable; a conductor without a broker, or one that has just found it again, knows nothing of
//! any host ([`FaultClass::MessageDeliveryFailure`]), so it refuses nobody and waits.

use std::time::Duration;

use drover_common::bus::{Address, Bus, CallError, SendError};
use drover_common::fault::Fault;
#[cfg(doc)]
use drover_common::fault::FaultClass;
use drover_common::ids::{HostName, RequestId};
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::ToCompute;
use serde::de::DeserializeOwned;

/// After a restart of the broker, or of this conductor, agents make their connections again with a pause of up to 5 s: only after
/// this long does the absence of one mean something.
const AGENTS_ARE_BACK: Duration = Duration::from_secs(8);

/// The way to all agents.
#[derive(Clone)]
pub(crate) struct Agents {
    bus: Bus,
}

impl Agents {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Asks an agent.
    pub(crate) async fn call<R: DeserializeOwned>(
        &self,
        host: &HostName,
        message: ToCompute,
        request: Option<&RequestId>,
        within: Duration,
    ) -> Result<R, Fault> {
        let envelope = Envelope::new(message).for_request(request.cloned());
        let asked = self.bus.call(&Address::Compute(host.clone()), &envelope, within).await;
        asked.map_err(|error| self.fault_of(host, error))
    }

    /// Tells an agent; the row holds what it is told, so a lost word is told again.
    pub(crate) async fn cast(&self, host: &HostName, message: ToCompute, request: Option<&RequestId>) -> Result<(), Fault> {
        let envelope = Envelope::new(message).for_request(request.cloned());
        let told = self.bus.cast(&Address::Compute(host.clone()), &envelope).await;
        told.map_err(|error| self.fault_of(host, error.into()))
    }

    fn fault_of(&self, host: &HostName, error: CallError) -> Fault {
        let connected_for = self.bus.connected_for();
        if matches!(error, CallError::Send(SendError::Unroutable(_))) && connected_for < AGENTS_ARE_BACK {
            return Fault::message_delivery_failure(format_args!(
                "{host}'s agent is not there, {} s after this conductor is; it has {} s",
                connected_for.as_secs(),
                AGENTS_ARE_BACK.as_secs()
            ));
        }
        fault_of(host, error)
    }
}

fn fault_of(host: &HostName, error: CallError) -> Fault {
    match error {
        CallError::Fault(fault) => fault,
        CallError::Send(SendError::Unroutable(_)) => {
            Fault::compute_service_unavailable(host, "Its agent has no connection to the message broker.")
        }
        CallError::Timeout { within, .. } => {
            Fault::compute_service_unavailable(host, format_args!("Its agent did not answer within {} s.", within.as_secs_f32()))
        }
        CallError::Send(error @ (SendError::Refused { .. } | SendError::Unsendable(_))) => {
            Fault::compute_service_unavailable(host, format_args!("It could not be asked: {error}."))
        }
        CallError::Send(SendError::Disconnected) => Fault::message_delivery_failure(format_args!("{host} could not be asked")),
        CallError::Lost(_) => Fault::message_delivery_failure(format_args!("it broke before {host} answered")),
    }
}
