//! What a conductor must hear of an attempt: sent until the broker has it.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use drover_common::bus::Address;
use drover_common::ids::MigrationId;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::ToConductor;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::context::Context;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// After this a conductor's sweep has long asked for facts by itself.
const PATIENCE: Duration = Duration::from_hours(1);

/// Sends it, again and again while the broker is away, until it has it, a newer attempt makes it pointless (`superseded`),
/// or the process ends.
pub async fn deliver(ctx: &Context, migration: MigrationId, message: ToConductor, superseded: &CancellationToken) {
    let envelope = Envelope::new(message);
    let begin = Instant::now();
    let pauses = ExponentialBuilder::default().with_min_delay(PAUSE_MIN).with_max_delay(PAUSE_MAX);
    let mut pauses = pauses.with_jitter().without_max_times().build();
    let mut connections = ctx.bus.connections();
    while let Err(error) = ctx.bus.cast(&Address::Conductor, &envelope).await {
        debug!(migration.id = %migration, error = %error, "report not delivered yet");
        if begin.elapsed() > PATIENCE {
            warn!(migration.id = %migration, error = %error, "report given up; a conductor asks for the facts");
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)) => {}
            _ = connections.changed() => {}
            () = superseded.cancelled() => return,
            () = ctx.life.stop.cancelled() => return,
        }
    }
    debug!(migration.id = %migration, "report delivered");
}
