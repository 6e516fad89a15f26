//! What domains this host has: told when one changes, and all of them now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use drover_common::bus::Address;
use drover_common::ids::ServerId;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{DomainReport, DomainsReport, GuestState, JobKind, ToConductor};
use futures::StreamExt;
use tokio::sync::{Mutex, Notify, broadcast};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::context::Context;
use crate::domain_xml::DomainXml;
use crate::driver::{DomainEvent, DriverError, ErrorClass};
use crate::facts::{self, SeenGuest};

/// How long events are gathered: starting a guest brings several.
const GATHER: Duration = Duration::from_millis(50);
/// How long a guest waits before it is looked at ([`Waiting`]).
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long one guest may keep the report about the others waiting.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Guests that are looked at side by side: no more calls than libvirt takes at a time.
const LOOKS_AT_A_TIME: usize = 4;
/// Between two complete reports that nothing asked for.
const COMPLETE_INTERVAL: Duration = Duration::from_mins(1);

/// What was last told of a guest; none if it is to be told of whatever it is.
type Known = Option<(GuestState, Option<JobKind>)>;

/// A guest that will be looked at [`LOOK_AGAIN`] from `since`:
///
/// - libvirt said that it changed while a migration of ours moves it. The conductor hears of it from the migration itself, often before
///   this look, which then is not needed ([`Domains::told_otherwise`]). Each such word begins the second anew; complete reports bound it.
/// - It runs here but has not wholly arrived, or is being migrated away by nobody that we know of. The end of either brings no event.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Instant,
    known: Known,
}

/// Reports of one life of the agent.
#[derive(Debug, Default)]
pub struct Domains {
    sequence: AtomicI64,
    /// Held from taking a number to the end of looking, so that a report with a higher number has looked later.
    looking: Mutex<()>,
    wanted: Notify,
    /// A guest waits that did not before.
    waits: Notify,
    waiting: std::sync::Mutex<BTreeMap<ServerId, Waiting>>,
}

impl Domains {
    /// Asks for a complete report now.
    pub fn request(&self) {
        self.wanted.notify_one();
    }

    /// All domains. Those that are arriving are not this host's yet.
    pub async fn complete(&self, ctx: &Context) -> Result<DomainsReport, DriverError> {
        self.look(ctx, None, &BTreeMap::new()).await
    }

    /// Looks at some domains, or at all; what must be looked at again waits for it. What is still as it is `known` to be is not reported
    /// once more.
    async fn look(
        &self,
        ctx: &Context,
        some: Option<Vec<ServerId>>,
        known: &BTreeMap<ServerId, Known>,
    ) -> Result<DomainsReport, DriverError> {
        let _looking = self.looking.lock().await;
        let begun = Instant::now();
        let mut report = DomainsReport {
            incarnation: ctx.incarnation,
            sequence: self.next(),
            complete: some.is_none(),
            domains: Vec::new(),
            gone: Vec::new(),
            unreadable: Vec::new(),
        };
        let servers = match some {
            Some(servers) => servers,
            None => ctx.driver.servers().await?,
        };
        let looks = servers.into_iter().map(|server| async move { (server, look_at(ctx, server).await) });
        let mut looks = futures::stream::iter(looks).buffered(LOOKS_AT_A_TIME);
        while let Some((server, look)) = looks.next().await {
            if !matches!(look, Look::Unreadable(_)) {
                self.told_otherwise(server, begun); // By this report.
            }
            match look {
                Look::Is(domain) => {
                    let now = Some((domain.state, domain.job));
                    if domain.job == Some(JobKind::MigrationOut) && !ctx.actors.is_under_way(server) {
                        self.wait(server, now);
                    }
                    if now.is_none_or(|now| known.get(&server) != Some(&Some(now))) {
                        report.domains.push(*domain);
                    }
                }
                Look::Arriving { runs: true } => self.wait(server, None),
                Look::Arriving { runs: false } => {}
                Look::Gone if report.complete => {} // Since they were listed.
                Look::Gone => report.gone.push(server),
                Look::Unreadable(error) if error.class == ErrorClass::Unavailable => return Err(error),
                Look::Unreadable(error) => {
                    warn!(server.id = %server, error = %error, "domain cannot be read: only that it is there is reported");
                    report.unreadable.push(server);
                }
            }
        }
        Ok(report)
    }

    /// Looks at one domain: it is in the report, or among what is gone.
    pub async fn of(&self, ctx: &Context, server: ServerId) -> Result<DomainsReport, DriverError> {
        self.look(ctx, Some(vec![server]), &BTreeMap::new()).await
    }

    /// A report on one domain that was just looked at. What was looked at before has a lower number, what comes after a higher one.
    pub fn of_one(&self, ctx: &Context, domain: DomainReport) -> DomainsReport {
        DomainsReport {
            incarnation: ctx.incarnation,
            sequence: self.next(),
            complete: false,
            domains: vec![domain],
            gone: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    fn next(&self) -> i64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The conductor is told of this guest by other means, as it was seen at `looked` or later: what libvirt said before is no news.
    pub fn told_otherwise(&self, server: ServerId, looked: Instant) {
        let mut waiting = self.waiting();
        if waiting.get(&server).is_some_and(|waits| waits.since <= looked) {
            waiting.remove(&server);
        }
    }

    fn wait(&self, server: ServerId, known: Known) {
        self.waiting().insert(server, Waiting { since: Instant::now(), known });
        self.waits.notify_one();
    }

    /// Waits until guests have waited long enough, and takes them out.
    async fn due(&self) -> BTreeMap<ServerId, Known> {
        loop {
            let first = self.waiting().values().map(|waits| waits.since).min();
            let Some(first) = first else {
                self.waits.notified().await;
                continue;
            };
            tokio::time::sleep_until(first + LOOK_AGAIN).await;
            let now = Instant::now();
            let due: BTreeMap<_, _> = self.waiting().extract_if(.., |_, waits| waits.since + LOOK_AGAIN <= now).collect();
            if !due.is_empty() {
                return due.into_iter().map(|(server, waits)| (server, waits.known)).collect();
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServerId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look at a domain brings.
enum Look {
    Is(Box<DomainReport>),
    /// Not this host's yet; perhaps its CPUs run already.
    Arriving {
        runs: bool,
    },
    Gone,
    Unreadable(DriverError),
}

/// A look with an end: a guest whose QEMU does not answer keeps its libvirt call, but not the report about the others.
async fn look_at(ctx: &Context, server: ServerId) -> Look {
    match tokio::time::timeout(LOOK_WITHIN, read(ctx, server)).await {
        Ok(Ok(look)) => look,
        Ok(Err(error)) if error.class == ErrorClass::NoDomain => Look::Gone,
        Ok(Err(error)) => Look::Unreadable(error),
        Err(_) => Look::Unreadable(DriverError::other(format!("no answer within {} s", LOOK_WITHIN.as_secs()))),
    }
}

async fn read(ctx: &Context, server: ServerId) -> Result<Look, DriverError> {
    match facts::see(ctx, server).await? {
        None => Ok(Look::Gone),
        Some(seen) if seen.domain.job == Some(JobKind::MigrationIn) => {
            Ok(Look::Arriving { runs: seen.facts.state != GuestState::PausedMigration })
        }
        Some(seen) => {
            let (_, xml) = facts::live_xml(ctx, server).await?;
            Ok(Look::Is(Box::new(report(&seen, &xml))))
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
    loop {
        let mut known = BTreeMap::new();
        let changes = tokio::select! {
            event = events.recv() => gather(ctx, event, &mut events).await,
            _ = complete.tick() => Changes::Everything,
            () = ctx.domains.wanted.notified() => Changes::Everything,
            due = ctx.domains.due() => {
                known = due;
                Changes::Of(known.keys().copied().collect())
            }
        };
        let looked = match changes {
            Changes::Of(servers) if servers.is_empty() => continue,
            Changes::Of(servers) => ctx.domains.look(ctx, Some(servers.into_iter().collect()), &known).await,
            Changes::Everything => ctx.domains.look(ctx, None, &known).await,
        };
        match looked {
            Ok(report) => send(ctx, report).await,
            Err(error) => debug!(error = %error, "domains not read; the next registration reports them"),
        }
    }
}

enum Changes {
    Of(BTreeSet<ServerId>),
    Everything,
}

type Event = Result<DomainEvent, broadcast::error::RecvError>;

/// The first event and those that follow closely. Guests that a migration of ours moves are left waiting.
async fn gather(ctx: &Context, first: Event, events: &mut broadcast::Receiver<DomainEvent>) -> Changes {
    let mut servers = BTreeSet::new();
    let mut next = first;
    let end = Instant::now() + GATHER;
    loop {
        match next {
            Ok(DomainEvent::Changed(server)) if ctx.moves(server) => ctx.domains.wait(server, None),
            Ok(DomainEvent::Changed(server)) => drop(servers.insert(server)),
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return Changes::Everything,
            Err(broadcast::error::RecvError::Closed) => return Changes::Of(servers),
        }
        if servers.is_empty() {
            return Changes::Of(servers);
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
