//! What an agent counts: one verb for each thing that happens.

use std::sync::Arc;
use std::time::Duration;

use drover_common::metrics::{
    BLACKOUT, DECISIONS, DEPENDENCY_UP, JOB_DURATION, JOBS_ADOPTED, JOBS_ENDED, JOBS_UNDER_WAY, MESSAGE_DURATION, STALLS,
};

use crate::context::Context;
use crate::migration::policy::Measure;

/// How libvirt's call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The guest is on the other side.
    Succeeded,
    /// libvirt gave up.
    Failed,
    /// This agent had it taken back.
    TakenBack,
}

impl Ended {
    const ALL: [Self; 3] = [Self::Succeeded, Self::Failed, Self::TakenBack];

    const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TakenBack => "taken_back",
        }
    }
}

/// Counters begin at 0, so that the first event shows as one.
pub fn begin() {
    for ended in Ended::ALL {
        JOBS_ENDED.add([ended.name()], 0);
    }
    let any_downtime = Measure::SetDowntime { milliseconds: 0 };
    for measure in [any_downtime, Measure::PostCopy, Measure::ForceComplete, Measure::Abort, Measure::Wait] {
        DECISIONS.add([name(measure)], 0);
    }
}

/// Follows libvirt's connection until the process is told to stop.
pub async fn watch_libvirt(ctx: Arc<Context>) {
    let mut connection = ctx.driver.connection();
    let follow = async {
        loop {
            let up = connection.borrow_and_update().up;
            DEPENDENCY_UP.set(["libvirt"], f64::from(u8::from(up)));
            if connection.changed().await.is_err() {
                return;
            }
        }
    };
    ctx.life.stop.run_until_cancelled(follow).await;
}

/// A message was handled.
pub fn handled(kind: &'static str, took: Duration) {
    MESSAGE_DURATION.took([kind], took);
}

/// A migration is taken in hand (1.0), or let go (-1.0).
pub fn in_hand(change: f64) {
    JOBS_UNDER_WAY.change([], change);
}

/// A running job was taken up again.
pub fn adopted() {
    JOBS_ADOPTED.increment([]);
}

/// libvirt's call returned.
pub fn returned(ended: Ended, took: Duration) {
    JOBS_ENDED.increment([ended.name()]);
    JOB_DURATION.took([], took);
}

/// The guest has arrived after running on neither host for so long.
pub fn blackout(lasted: Duration) {
    BLACKOUT.took([], lasted);
}

/// Something was decided about a copy.
pub fn decided(measure: Measure) {
    DECISIONS.increment([name(measure)]);
}

/// A copy gets nowhere.
pub fn stalled() {
    STALLS.increment([]);
}

const fn name(measure: Measure) -> &'static str {
    match measure {
        Measure::SetDowntime { .. } => "downtime",
        Measure::PostCopy => "post_copy",
        Measure::ForceComplete => "force_complete",
        Measure::Abort => "abort",
        Measure::Wait => "wait",
    }
}
