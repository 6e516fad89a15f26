//! A hypervisor that does what a test says, and a conductor that the test plays: the agent between them is the real one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_common::bus::memory::MemoryBroker;
use drover_common::bus::{Address, Bus, CallError, Incoming};
use drover_common::config::from_toml;
use drover_common::fault::Fault;
use drover_common::ids::{Attempt, HostName, Incarnation, MigrationId, PowerActionId, Revision, ServerId};
use drover_common::lifecycle::Life;
use drover_common::migration::Decision;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{
    Authority, CleanUp, DestinationAddresses, DomainsReport, GrantKind, Granted, HostUp, HostWelcome, JobKind, Marker, MigrateData,
    MigrationReport, OfAttempt, ToCompute, ToConductor, Watch, WithData,
};
use drover_compute::config::Options;
use drover_compute::context::Context;
use drover_compute::domain_xml::Machine;
use drover_compute::driver::{
    Action, Answer, Connection, CpuComparison, DiskUsage, Domain, DomainEvent, Driver, DriverError, ErrorClass, HostDescription,
    Inspection, JobSample, MigrateCall, PauseReason, RunState, XmlKind,
};
use futures::FutureExt;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// What the fake hypervisor has, and what was asked of it.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) domain: Option<Domain>,
    pub(crate) sample: JobSample,
    pub(crate) calls: Vec<MigrateCall>,
    pub(crate) actions: Vec<Action>,
    pub(crate) libvirt_is_old: bool,
    /// What block jobs were told: targets, and MiB/s for each.
    pub(crate) disk_speeds: Vec<(Vec<String>, u64)>,
    /// Domains about which no question is answered.
    pub(crate) silent: Vec<ServerId>,
    /// Whether the guest obeys when it is told to shut down.
    pub(crate) shuts_down: bool,
    /// The next so many questions for the XML fail.
    pub(crate) xml_failures: u32,
    /// How often the job was looked at while there was one.
    pub(crate) looks: u32,
    /// Devices in the domain's XML.
    pub(crate) devices: String,
    returns: Vec<oneshot::Sender<Result<(), DriverError>>>,
}

pub(crate) struct FakeDriver {
    state: Mutex<State>,
    connection: watch::Sender<Connection>,
    events: broadcast::Sender<DomainEvent>,
}

impl FakeDriver {
    fn new(server: ServerId) -> Arc<Self> {
        let domain = Domain { server, name: "g1".to_owned(), state: RunState::Running, persistent: true, job: None, marker: None };
        Arc::new(Self {
            state: Mutex::new(State { domain: Some(domain), ..State::default() }),
            connection: watch::channel(Connection { count: 1, up: true }).0,
            events: broadcast::channel(64).0,
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job on the domain, as both questions show it.
    pub(crate) fn set_job(&self, kind: Option<JobKind>, memory_total: i64) {
        let mut state = self.state();
        state.sample.kind = kind;
        state.sample.progress.memory_total = memory_total;
        if let Some(domain) = &mut state.domain {
            domain.job = kind;
        }
    }

    pub(crate) fn tell(&self, event: DomainEvent) {
        self.events.send(event).unwrap();
    }

    /// The connection broke and is there again.
    pub(crate) fn reconnect(&self) {
        self.connection.send_modify(|connection| connection.count += 1);
    }

    /// Lets the oldest call return.
    pub(crate) fn return_from_call(&self, result: Result<(), DriverError>) {
        let sender = self.state().returns.remove(0);
        sender.send(result).unwrap();
    }

    fn answer<T: Send + 'static>(result: Result<T, DriverError>) -> Answer<T> {
        async move { result }.boxed()
    }
}

fn no_domain() -> DriverError {
    DriverError { class: ErrorClass::NoDomain, ..DriverError::other("Domain not found") }
}

impl Driver for FakeDriver {
    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }
    fn events(&self) -> broadcast::Receiver<DomainEvent> {
        self.events.subscribe()
    }
    fn host(&self) -> Answer<HostDescription> {
        Self::answer(Ok(HostDescription {
            hostname: "h1".to_owned(),
            hypervisor_type: "fake".to_owned(),
            hypervisor_version: 1,
            libvirt_version: if self.state().libvirt_is_old { 9_000_000 } else { 11_003_000 },
            cpus: 1,
            memory_mb: 1024,
            capabilities: "<capabilities/>".to_owned(),
        }))
    }
    fn servers(&self) -> Answer<Vec<ServerId>> {
        let state = self.state();
        Self::answer(Ok(state.silent.iter().copied().chain(state.domain.as_ref().map(|domain| domain.server)).collect()))
    }
    fn domain(&self, server: ServerId) -> Answer<Domain> {
        let state = self.state();
        if state.silent.contains(&server) {
            return std::future::pending().boxed();
        }
        Self::answer(state.domain.clone().ok_or_else(no_domain))
    }
    fn xml(&self, _: ServerId, _: XmlKind) -> Answer<String> {
        {
            let mut state = self.state();
            if state.xml_failures > 0 {
                state.xml_failures -= 1;
                return Self::answer(Err(DriverError::other("cannot acquire state change lock")));
            }
        }
        let there = self.state().domain.is_some();
        let xml = format!(
            "<domain type='kvm'><name>g1</name><memory unit='MiB'>128</memory><vcpu>1</vcpu><devices>{}</devices></domain>",
            self.state().devices
        );
        Self::answer(if there { Ok(xml) } else { Err(no_domain()) })
    }
    fn named(&self, _: String) -> Answer<Option<ServerId>> {
        Self::answer(Ok(None))
    }
    fn inspect(&self, _: ServerId) -> Answer<Inspection> {
        Self::answer(Ok(Inspection::default()))
    }
    fn disk_usage(&self, _: ServerId, targets: Vec<String>) -> Answer<Vec<DiskUsage>> {
        let copied = self.state().sample.progress.disk_total > 0;
        let usage = targets.iter().map(|_| DiskUsage { block_job: true, ..DiskUsage::default() });
        Self::answer(Ok(if copied { usage.collect() } else { Vec::new() }))
    }
    fn set_disk_speed(&self, _: ServerId, targets: Vec<String>, mib: u64) -> Answer<()> {
        self.state().disk_speeds.push((targets, mib));
        Self::answer(Ok(()))
    }
    fn job(&self, _: ServerId) -> Answer<JobSample> {
        let mut state = self.state();
        state.looks += u32::from(state.sample.kind.is_some());
        Self::answer(if state.domain.is_some() { Ok(state.sample.clone()) } else { Err(no_domain()) })
    }
    fn capabilities(&self, _: Machine) -> Answer<String> {
        Self::answer(Ok("<domainCapabilities/>".to_owned()))
    }
    fn compare_cpu(&self, _: Machine, _: String) -> Answer<CpuComparison> {
        Self::answer(Ok(CpuComparison::Fits))
    }
    fn compare_host_cpu(&self, _: String) -> Answer<CpuComparison> {
        Self::answer(Ok(CpuComparison::Fits))
    }
    fn prepare_migration(&self, _: ServerId) {}
    fn migrate(&self, call: MigrateCall) -> Answer<()> {
        let (sender, returned) = oneshot::channel();
        let mut state = self.state();
        state.calls.push(call);
        state.returns.push(sender);
        async move { returned.await.unwrap() }.boxed()
    }
    fn act(&self, _: ServerId, action: Action) -> Answer<()> {
        let mut state = self.state();
        state.actions.push(action);
        let shuts_down = state.shuts_down;
        let Some(domain) = &mut state.domain else { return Self::answer(Err(no_domain())) };
        match action {
            Action::Suspend => domain.state = RunState::Paused(PauseReason::Other),
            Action::Resume => domain.state = RunState::Running,
            Action::Destroy => domain.state = RunState::ShutOff,
            Action::Undefine => domain.persistent = false,
            Action::Start => domain.state = RunState::Running,
            Action::Shutdown if shuts_down => domain.state = RunState::ShutOff,
            Action::Shutdown => {}
            Action::UndefineAll => domain.persistent = false,
            Action::AbortJob | Action::StartPostCopy | Action::SetMaxDowntime { .. } | Action::SetMaxSpeed { .. } => {}
        }
        if domain.state == RunState::ShutOff && !domain.persistent {
            state.domain = None;
        }
        Self::answer(Ok(()))
    }
    fn define(&self, _: String) -> Answer<()> {
        Self::answer(Ok(()))
    }
}

type OnGrant = Box<dyn Fn(&mut State) + Send>;

/// How the conductor answers.
#[derive(Default)]
pub(crate) struct Script {
    /// What was asked leave for.
    pub(crate) asked: Vec<GrantKind>,
    /// The power actions for which leave was asked, once for each deed.
    pub(crate) asked_for_power: Vec<PowerActionId>,
    /// What happens on the host while leave is asked for.
    pub(crate) on_grant: Option<OnGrant>,
    pub(crate) watch: Vec<Watch>,
    pub(crate) refuses: bool,
    pub(crate) abort_requested: bool,
    pub(crate) bandwidth_mib: Option<u64>,
    pub(crate) is_silent: bool,
    /// What was heard, each with the trace that it came in.
    pub(crate) heard: Vec<(&'static str, Option<String>)>,
}

/// One agent, its hypervisor, and the conductor that the test plays.
pub(crate) struct Stage {
    pub(crate) of: OfAttempt,
    pub(crate) ctx: Arc<Context>,
    pub(crate) driver: Arc<FakeDriver>,
    pub(crate) life: Life,
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) conductor: Bus,
    pub(crate) broker: MemoryBroker,
    pub(crate) reports: mpsc::UnboundedReceiver<MigrationReport>,
    pub(crate) ups: mpsc::UnboundedReceiver<HostUp>,
    pub(crate) domains: mpsc::UnboundedReceiver<DomainsReport>,
    pub(crate) decisions: mpsc::UnboundedReceiver<Decision>,
}

impl Stage {
    /// Starts the agent; `set` writes the script before it introduces itself.
    pub(crate) fn new(set: impl FnOnce(&mut Script, &FakeDriver, OfAttempt)) -> Self {
        Self::with_options("", set)
    }

    /// The same with these options of `[libvirt]`.
    pub(crate) fn with_options(libvirt: &str, set: impl FnOnce(&mut Script, &FakeDriver, OfAttempt)) -> Self {
        let of = OfAttempt { migration: MigrationId(7), attempt: Attempt(1), server: ServerId::random() };
        let broker = MemoryBroker::default();
        let (conductor, inbox) = broker.join(&Address::ConductorProcess(Incarnation::random()));
        let (driver, life, script) = (FakeDriver::new(of.server), Life::default(), Arc::new(Mutex::new(Script::default())));
        set(&mut script.lock().unwrap(), &driver, of);
        let (report_sender, reports) = mpsc::unbounded_channel();
        let (up_sender, ups) = mpsc::unbounded_channel();
        let (domains_sender, domains) = mpsc::unbounded_channel();
        let (decision_sender, decisions) = mpsc::unbounded_channel();
        let heard = Heard { reports: report_sender, ups: up_sender, domains: domains_sender, decisions: decision_sender };
        tokio::spawn(play_conductor(conductor.clone(), inbox, Arc::clone(&script), Arc::clone(&driver), heard));
        let config = from_toml(&format!("[DEFAULT]\nhost = \"h1\"\nmy_ip = \"192.0.2.1\"\n[libvirt]\n{libvirt}")).unwrap();
        let (bus, arrivals) = broker.join(&address());
        let driver_of_agent: Arc<dyn Driver> = driver.clone();
        let ctx = Context::new(Options::new(&config).unwrap(), driver_of_agent, bus, life.clone());
        life.spawn(drover_compute::agent::serve(Arc::clone(&ctx), arrivals));
        Self { of, ctx, driver, life, script, conductor, broker, reports, ups, domains, decisions }
    }

    pub(crate) fn marker(&self) -> Marker {
        Marker { migration: self.of.migration, attempt: self.of.attempt }
    }

    /// Changes the domain.
    pub(crate) fn set_domain(&self, change: impl FnOnce(&mut Domain)) {
        change(self.driver.state().domain.as_mut().unwrap());
    }

    pub(crate) fn clean_up(&self, authority: Authority) -> CleanUp {
        let OfAttempt { migration, attempt, server } = self.of;
        CleanUp { migration, left_by: attempt, server, authority, data: self.with_data().data, probes: None }
    }

    pub(crate) fn order(&self) -> ToCompute {
        ToCompute::LiveMigration(self.with_data())
    }

    pub(crate) fn with_data(&self) -> WithData {
        let host = HostName::new("h2").unwrap();
        let destination = DestinationAddresses {
            connect_address: host.to_string(),
            host,
            inbound_address_set: false,
            graphics_listen_addr_vnc: None,
            graphics_listen_addr_spice: None,
            networks: Vec::new(),
            consoles: Vec::new(),
        };
        let data = MigrateData {
            name: "g1".to_owned(),
            xml: String::new(),
            persistent: true,
            paused: false,
            block_migration: false,
            disks: Vec::new(),
            destination,
            no_post_copy: None,
            connect_timeout_s: None,
            stream: None,
            no_way_back: None,
        };
        WithData { of: self.of, data }
    }

    pub(crate) async fn cast(&self, message: ToCompute) {
        self.conductor.cast(&address(), &Envelope::new(message)).await.unwrap();
    }

    pub(crate) async fn call<R: DeserializeOwned>(&self, message: ToCompute) -> Result<R, CallError> {
        self.conductor.call(&address(), &Envelope::new(message), Duration::from_secs(5)).await
    }

    pub(crate) async fn report(&mut self) -> MigrationReport {
        self.reports.recv().await.unwrap()
    }

    /// Waits until the fake hypervisor shows `what`.
    pub(crate) async fn until(&self, what: impl Fn(&State) -> bool) {
        while !what(&self.driver.state()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn address() -> Address {
    Address::Compute(HostName::new("h1").unwrap())
}

/// What the conductor hears.
struct Heard {
    reports: mpsc::UnboundedSender<MigrationReport>,
    ups: mpsc::UnboundedSender<HostUp>,
    domains: mpsc::UnboundedSender<DomainsReport>,
    decisions: mpsc::UnboundedSender<Decision>,
}

async fn play_conductor(
    bus: Bus,
    mut inbox: mpsc::Receiver<Incoming>,
    script: Arc<Mutex<Script>>,
    driver: Arc<FakeDriver>,
    heard: Heard,
) {
    while let Some(incoming) = inbox.recv().await {
        let to = incoming.reply_to();
        let Envelope { message, traceparent, .. } = incoming.decode::<ToConductor>().unwrap();
        script.lock().unwrap().heard.push((message.name(), traceparent));
        match message {
            ToConductor::HostUp(up) => {
                let watch = script.lock().unwrap().watch.clone();
                bus.reply(to.as_ref(), Ok(HostWelcome { watch })).await;
                heard.ups.send(up).ok();
            }
            ToConductor::Grant(request) => {
                let answer = {
                    let mut script = script.lock().unwrap();
                    script.asked.push(request.kind);
                    if let Some(happens) = &script.on_grant {
                        happens(&mut driver.state());
                    }
                    match (script.is_silent, script.refuses) {
                        (true, _) => None,
                        (_, true) => Some(Err(Fault::migration_error("not this attempt"))),
                        _ => Some(Ok(Granted {
                            revision: Revision(5),
                            abort_requested: script.abort_requested,
                            bandwidth_mib: script.bandwidth_mib,
                        })),
                    }
                };
                if let Some(answer) = answer {
                    bus.reply(to.as_ref(), answer).await;
                }
            }
            ToConductor::Report(report) => drop(heard.reports.send(report)),
            ToConductor::Decided(report) => {
                for decision in std::iter::once(report.decision).chain(report.more) {
                    heard.decisions.send(decision).ok();
                }
            }
            ToConductor::Domains(domains) => drop(heard.domains.send(domains)),
            ToConductor::GrantPower(request) => {
                let answer = {
                    let mut script = script.lock().unwrap();
                    script.asked_for_power.push(request.id);
                    if let Some(happens) = &script.on_grant {
                        happens(&mut driver.state());
                    }
                    match (script.is_silent, script.refuses) {
                        (true, _) => None,
                        (_, true) => Some(Err(Fault::migration_error("it is over"))),
                        _ => Some(Ok(())),
                    }
                };
                if let Some(answer) = answer {
                    bus.reply(to.as_ref(), answer).await;
                }
            }
            _ => {}
        }
    }
}
