//! What domains this host has: told when one changes, and all of them now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use drover_common::bus::Address;
use drover_common::ids::ServerId;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{DomainReport, DomainsReport, GuestState, JobKind, ToConductor};
use tokio::sync::{Mutex, Notify, broadcast};
use tracing::{debug, warn};

use crate::context::Context;
use crate::domain_xml::DomainXml;
use crate::driver::{DomainEvent, DriverError, ErrorClass};
use crate::facts::{self, SeenGuest};

/// How long events are gathered: starting a guest brings several.
const GATHER: Duration = Duration::from_millis(50);
/// When a guest that runs here but has not wholly arrived is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two complete reports that nothing asked for.
const COMPLETE_INTERVAL: Duration = Duration::from_mins(1);

/// Reports of one life of the agent.
#[derive(Debug, Default)]
pub struct Domains {
    sequence: AtomicI64,
    /// Held from taking a number to the end of looking, so that a report with a higher number has looked later.
    looking: Mutex<()>,
    wanted: Notify,
}

impl Domains {
    /// Asks for a complete report now.
    pub fn request(&self) {
        self.wanted.notify_one();
    }

    /// All domains. Those that are arriving are not this host's yet.
    pub async fn complete(&self, ctx: &Context) -> Result<DomainsReport, DriverError> {
        let _looking = self.looking.lock().await;
        let mut report = self.empty(ctx, true);
        for domain in ctx.driver.domains().await? {
            if domain.job != Some(JobKind::MigrationIn) {
                report.domains.extend(read(ctx, &SeenGuest::from(domain)).await?);
            }
        }
        Ok(report)
    }

    /// Those that changed, and those of them that should be looked at again soon: libvirt says nothing more when a guest that runs
    /// already has wholly arrived.
    async fn changed(
        &self,
        ctx: &Context,
        servers: &BTreeSet<ServerId>,
    ) -> Result<(DomainsReport, BTreeSet<ServerId>), DriverError> {
        let _looking = self.looking.lock().await;
        let (mut report, mut again) = (self.empty(ctx, false), BTreeSet::new());
        for &server in servers {
            match facts::see(ctx, server).await? {
                None => report.gone.push(server),
                Some(seen) if seen.domain.job != Some(JobKind::MigrationIn) => report.domains.extend(read(ctx, &seen).await?),
                Some(seen) if seen.facts.state != GuestState::PausedMigration => {
                    again.insert(server);
                }
                Some(_) => {}
            }
        }
        Ok((report, again))
    }

    fn empty(&self, ctx: &Context, complete: bool) -> DomainsReport {
        DomainsReport { incarnation: ctx.incarnation, sequence: self.next(), complete, domains: Vec::new(), gone: Vec::new() }
    }

    fn next(&self) -> i64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A domain with what its XML says; none if it is gone or cannot be understood.
async fn read(ctx: &Context, seen: &SeenGuest) -> Result<Option<DomainReport>, DriverError> {
    match facts::live_xml(ctx, seen.domain.server).await {
        Ok((_, xml)) => Ok(Some(report(seen, &xml))),
        Err(error) if error.class == ErrorClass::Unavailable => Err(error),
        Err(error) if error.class == ErrorClass::NoDomain => Ok(None),
        Err(error) => {
            warn!(server.id = %seen.domain.server, error = %error, "domain left out of the report");
            Ok(None)
        }
    }
}

/// One domain, for the conductor.
pub fn report(seen: &SeenGuest, xml: &DomainXml) -> DomainReport {
    DomainReport {
        server: seen.domain.server,
        domain_name: xml.name.clone(),
        display_name: xml.display_name().to_owned(),
        state: seen.facts.state,
        job: seen.domain.job,
        persistent: seen.domain.persistent,
        marker: seen.facts.marker,
        flavor: xml.flavor(),
        owner: xml.nova.as_ref().and_then(|nova| nova.owner.clone()),
    }
}

/// Reports until the process is told to stop. What cannot be sent is not kept: the next complete report has it all.
pub async fn keep_reporting(ctx: Arc<Context>) {
    let stop = ctx.life.stop.clone();
    stop.run_until_cancelled(report_changes(&ctx)).await;
}

async fn report_changes(ctx: &Context) {
    let mut events = ctx.driver.events();
    let mut complete = tokio::time::interval(COMPLETE_INTERVAL);
    complete.tick().await; // The first one goes with the registration.
    let mut again = BTreeSet::new();
    loop {
        let changes = tokio::select! {
            event = events.recv() => gather(event, &mut events).await,
            _ = complete.tick() => Changes::Everything,
            () = ctx.domains.wanted.notified() => Changes::Everything,
            () = tokio::time::sleep(LOOK_AGAIN), if !again.is_empty() => Changes::Of(std::mem::take(&mut again)),
        };
        let looked = match changes {
            Changes::Nothing => continue,
            Changes::Of(servers) => ctx.domains.changed(ctx, &servers).await,
            Changes::Everything => ctx.domains.complete(ctx).await.map(|report| (report, BTreeSet::new())),
        };
        match looked {
            Ok((report, arriving)) => {
                again.extend(arriving);
                send(ctx, report).await;
            }
            Err(error) => debug!(error = %error, "domains not read; the next registration reports them"),
        }
    }
}

enum Changes {
    Nothing,
    Of(BTreeSet<ServerId>),
    Everything,
}

type Event = Result<DomainEvent, broadcast::error::RecvError>;

/// The first event and those that follow closely.
async fn gather(first: Event, events: &mut broadcast::Receiver<DomainEvent>) -> Changes {
    let mut servers = BTreeSet::new();
    let mut next = first;
    let end = tokio::time::Instant::now() + GATHER;
    loop {
        match next {
            Ok(DomainEvent::Changed(server)) => {
                servers.insert(server);
            }
            Ok(_) if servers.is_empty() => return Changes::Nothing,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return Changes::Everything,
            Err(broadcast::error::RecvError::Closed) => return Changes::Nothing,
        }
        match tokio::time::timeout_at(end, events.recv()).await {
            Ok(event) => next = event,
            Err(_) => return Changes::Of(servers),
        }
    }
}

async fn send(ctx: &Context, report: DomainsReport) {
    if !report.complete && report.domains.is_empty() && report.gone.is_empty() {
        return;
    }
    let is_complete = report.complete;
    let envelope = Envelope::new(ToConductor::Domains(report));
    let sent = if is_complete {
        ctx.bus.cast_transient(&Address::Conductor, &envelope, COMPLETE_INTERVAL).await // Then the next one is due.
    } else {
        ctx.bus.cast(&Address::Conductor, &envelope).await
    };
    if let Err(error) = sent {
        debug!(error = %error, "domains not reported; the next registration reports them");
    }
}
