//! Messages to the conductor: each handled on a task of its own, acknowledged when forgetting it is safe.
//!
//! Safe means: what it was about is on a row (and the sweep finds the row), or it was answered, or it will be said again anyway.
//! A failed database makes it come again; a message that cannot be read is answered, logged and put away.

use std::sync::Arc;
use std::time::Instant;

use drover_common::bus::{Incoming, Sender};
use drover_common::fault::Fault;
use drover_common::ids::HostName;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::ToConductor;
use drover_common::telemetry;
use drover_store::StoreError;
use tokio::sync::{Semaphore, mpsc};
use tracing::{Instrument, debug, field, info_span, warn};

use crate::dispatch::{self, Kind};
use crate::{Conductor, metrics};

/// What is to be done with a message after its handler.
pub(crate) enum Done {
    /// Forget it.
    Yes,
    /// The database did not play along: let it come again.
    Again(StoreError),
}

impl From<StoreError> for Done {
    fn from(error: StoreError) -> Self {
        Self::Again(error)
    }
}

impl Conductor {
    /// Takes messages until the process is told to stop.
    pub(crate) async fn consume(self: Arc<Self>, mut inbox: mpsc::Receiver<Incoming>) {
        let workers = Arc::new(Semaphore::new(self.settings.workers));
        loop {
            let incoming = tokio::select! {
                biased;
                () = self.life.stop.cancelled() => return,
                incoming = inbox.recv() => match incoming {
                    Some(incoming) => incoming,
                    None => return,
                },
            };
            let Ok(place) = Arc::clone(&workers).acquire_owned().await else {
                return;
            };
            let conductor = Arc::clone(&self);
            self.life.spawn(async move {
                conductor.take_in(incoming).await;
                drop(place);
            });
        }
    }

    async fn take_in(self: Arc<Self>, incoming: Incoming) {
        let envelope = match incoming.decode::<ToConductor>() {
            Ok(envelope) => envelope,
            Err(fault) => {
                warn!(error = %fault, sender = ?incoming.sender, "message not understood");
                self.bus.reply::<()>(incoming.reply_to().as_ref(), Err(fault)).await;
                incoming.ack().await;
                return;
            }
        };
        let name = envelope.message.name();
        let span = info_span!(
            "conductor.message",
            kind = name,
            request.id = envelope.request_id.as_ref().map(tracing::field::display),
            trace.id = field::Empty
        );
        telemetry::join(&span, envelope.traceparent.as_deref());
        let began = Instant::now();
        let done = Box::pin(self.handle(&incoming, envelope)).instrument(span).await;
        metrics::handled(name, began.elapsed());
        match done {
            Done::Yes => incoming.ack().await,
            Done::Again(error) => {
                warn!(error = telemetry::chain(&error), kind = name, "message put back");
                incoming.requeue().await;
            }
        }
    }

    async fn handle(self: &Arc<Self>, incoming: &Incoming, envelope: Envelope<ToConductor>) -> Done {
        let Envelope { message, .. } = envelope;
        let reply_to = incoming.reply_to();
        match (&incoming.sender, message) {
            (_, ToConductor::Wake { migration }) => self.start_drive(migration, None).await,
            (Sender::Control, ToConductor::WakePower { power_action }) => self.start_power(power_action).await,
            (Sender::Agent(host), ToConductor::GrantPower(request)) => self.grant_power(host, request, reply_to.as_ref()).await,
            (Sender::Control, ToConductor::MigrateServer(message)) => match dispatch::kind(&message) {
                Ok(Kind::Live) => self.start_drive(message.migration, None).await,
                Ok(Kind::Cold) => self.refuse(message.migration, Fault::not_implemented("cold migration")).await,
                Err(fault) => self.refuse(message.migration, fault).await,
            },
            (Sender::Control, ToConductor::Diagnose) => self.diagnose(reply_to.as_ref()).await,
            (Sender::Agent(host), ToConductor::HostUp(up)) => self.host_up(host, up, reply_to.as_ref()).await,
            (Sender::Agent(host), ToConductor::Heartbeat { incarnation }) => {
                self.heartbeats.note(host, incarnation);
                Done::Yes
            }
            (Sender::Agent(host), ToConductor::Domains(report)) => self.domains(host, &report).await,
            (Sender::Agent(host), ToConductor::Grant(request)) => self.grant(host, request, reply_to.as_ref()).await,
            (Sender::Agent(host), ToConductor::Progress(report)) => self.progress(host, &report).await,
            (Sender::Agent(host), ToConductor::Decided(report)) => self.decided(host, report).await,
            (Sender::Agent(host), ToConductor::Report(report)) => self.report(host, report).await,
            (sender, message) => self.out_of_place(sender, &message, reply_to.as_ref()).await,
        }
    }

    async fn out_of_place(&self, sender: &Sender, message: &ToConductor, reply_to: Option<&drover_common::bus::ReplyTo>) -> Done {
        let who = match sender {
            Sender::Control => "the control plane".to_owned(),
            Sender::Agent(host) => format!("the agent of {host}"),
        };
        warn!(kind = message.name(), sender = who, "message refused: it is not this sender's to send");
        let fault = Fault::unexpected(format_args!("{} is not for {who} to send", message.name()));
        self.bus.reply::<()>(reply_to, Err(fault)).await;
        Done::Yes
    }
}

/// Whether `host` may speak for a migration: only its two hosts may.
pub(crate) fn takes_part(row: &drover_store::migrations::Migration, host: &HostName) -> bool {
    let part = row.source == *host || row.destination.as_ref() == Some(host);
    if !part {
        debug!(host = %host, migration.id = %row.id, "a host spoke about a migration that it has no part in");
    }
    part
}
