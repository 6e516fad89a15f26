//! Messages that a transaction promises: written in it, sent as soon as it is committed, without the caller waiting for the
//! broker. What cannot be sent now (or not marked as sent) is sent by a conductor's sweep, perhaps twice: receivers do not mind.

use drover_common::bus::Address;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::ToConductor;
use drover_common::telemetry;
use drover_store::{PgConnection, StoreError, outbox};
use tracing::{Instrument, debug, info};

use crate::state::AppState;

/// A message that the transaction holds.
#[derive(Debug)]
#[must_use = "publish it after the commit"]
pub(crate) struct Promised {
    row: i64,
    envelope: Envelope<ToConductor>,
}

/// Writes a message to the conductors in the caller's transaction.
pub(crate) async fn promise(conn: &mut PgConnection, envelope: Envelope<ToConductor>) -> Result<Promised, StoreError> {
    let row = outbox::append(conn, &Address::Conductor, &envelope).await?;
    Ok(Promised { row, envelope })
}

/// Sends what was promised, after the commit, in the background. The process does not end before it was tried.
pub(crate) fn publish(app: &AppState, promised: Promised) {
    let task = app.clone();
    app.life().spawn(async move { send(&task, promised).await }.in_current_span());
}

async fn send(app: &AppState, Promised { row, envelope }: Promised) {
    let kind = envelope.message.name();
    if let Err(error) = app.bus().cast(&Address::Conductor, &envelope).await {
        info!(message.kind = kind, error = telemetry::chain(&error), "not sent now: a conductor's sweep will");
        return;
    }
    let marked = async {
        let mut conn = app.store().connection().await?;
        outbox::mark_published(&mut conn, row).await
    };
    if let Err(error) = marked.await {
        debug!(message.kind = kind, error = telemetry::chain(&error), "sent, but not marked so: a sweep will send it again");
    }
}
