//! A post-copy that broke: the guest runs on the destination and waits for pages that only the source has. Neither copy is touched but
//! to go on with the stream.

use std::sync::Arc;
use std::time::Duration;

use drover_common::fault::Fault;
use drover_common::ids::HostName;
use drover_common::rpc::latest::{CallState, HostFacts, Recovery, ToCompute};
use drover_store::migrations::{Migration, amend, steps};
use drover_store::{StoreError, hosts};
use tracing::{info, warn};

use super::start::with_data;
use crate::drive::Step;
use crate::recovery::plan::{Facts, Known};
use crate::{Conductor, metrics};

/// A destination's libvirt from the first of these versions up to the second crashes when it is asked to go on (libvirt's release
/// notes, 11.4.0). QEMU would live on, but nothing would be gained.
const CRASHES: std::ops::Range<i32> = 11_002_000..11_004_000;
/// A try begins with one at the destination's port; its end is reported.
const TRY_TAKES: Duration = Duration::from_secs(10);
/// When a host whose libvirt must be renewed first is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

impl Conductor {
    /// Tells the source to go on, after a pause that grows from try to try.
    pub(crate) async fn recover_post_copy(
        self: &Arc<Self>,
        row: &Migration,
        facts: &Facts,
        pause: Duration,
    ) -> Result<Step, StoreError> {
        let Some((with_data, destination)) = with_data(row) else {
            return self.without_data(row).await;
        };
        let mut conn = self.store.connection().await?;
        let version = hosts::libvirt_version(&mut conn, &destination).await?;
        if let Some(version) = version.filter(|version| CRASHES.contains(version)) {
            return Ok(Step::Wait(needs_another_libvirt(&destination, version), LOOK_AGAIN));
        }
        let attempt = row.recoveries + 1;
        let why = reason(facts);
        let fault = Fault::migration_error(format_args!(
            "post-copy from {} to {destination} broke, the guest waits on {destination}: {why}",
            row.source
        ));
        let written = amend(&mut conn, row, |after| {
            after.recoveries = attempt;
            after.fault = Some(fault.for_caller());
        });
        if written.await?.is_none() {
            return Ok(Step::Changed);
        }
        if is_noted(attempt) {
            steps::note(&mut conn, row.id, row.attempt, &format!("recovery, try {attempt}"), &why).await?;
        }
        drop(conn);
        metrics::recovers();
        info!(attempt, why, "post-copy broke: the source is told to go on with it");
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let order = ToCompute::RecoverPostCopy(Recovery { with: with_data, pause_ms });
        if let Err(fault) = self.agents.cast(&row.source, order, Some(&row.request_id)).await {
            warn!(error = %fault, source = %row.source, "not told; it is told again");
        }
        let why = format!(
            "post-copy to go on: it broke, the guest waits on {destination}; try {attempt} in {} s ({why})",
            pause.as_secs()
        );
        Ok(Step::Wait(why, pause + TRY_TAKES))
    }
}

/// A link may be cut for days: after the first tries only each that doubles their number is kept.
fn is_noted(attempt: i32) -> bool {
    attempt <= 8 || attempt.count_ones() == 1
}

fn reason(facts: &Facts) -> String {
    match &facts.source {
        Known::Seen(HostFacts { call: CallState::Ended { error: Some(error), .. }, .. }) => error.clone(),
        _ => "its stream broke".to_owned(),
    }
}

fn needs_another_libvirt(destination: &HostName, version: i32) -> String {
    format!(
        "a newer libvirt on {destination}: post-copy broke, the guest waits there, and libvirt {}.{}.{} crashes when it is asked to go \
         on; install 11.4.0 or newer there and restart libvirtd (guests live on), then it goes on by itself",
        version / 1_000_000,
        version / 1000 % 1000,
        version % 1000
    )
}
