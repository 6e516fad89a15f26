//! A hypervisor that does what a test says, and a conductor that the test plays: the agent between them is the real one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_common::bus::memory::MemoryBroker;
use drover_common::bus::{Address, Bus, CallError, Incoming};
use drover_common::config::from_toml;
use drover_common::fault::Fault;
use drover_common::ids::{Attempt, HostName, Incarnation, MigrationId, Revision, ServerId};
use drover_common::lifecycle::Life;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{
    DestinationAddresses, Granted, HostUp, HostWelcome, JobKind, MigrateData, MigrationReport, OfAttempt, ToCompute, ToConductor,
    Watch, WithData,
};
use drover_compute::config::Options;
use drover_compute::context::Context;
use drover_compute::domain_xml::Machine;
use drover_compute::driver::{
    Action, Answer, Connection, CpuComparison, DiskUsage, Domain, DomainEvent, Driver, DriverError, ErrorClass, HostDescription,
    Inspection, JobSample, MigrateCall, RunState, XmlKind,
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
            libvirt_version: 1,
            cpus: 1,
            memory_mb: 1024,
            capabilities: "<capabilities/>".to_owned(),
        }))
    }
    fn domains(&self) -> Answer<Vec<Domain>> {
        Self::answer(Ok(self.state().domain.iter().cloned().collect()))
    }
    fn domain(&self, _: ServerId) -> Answer<Domain> {
        Self::answer(self.state().domain.clone().ok_or_else(no_domain))
    }
    fn xml(&self, _: ServerId, _: XmlKind) -> Answer<String> {
        let there = self.state().domain.is_some();
        let xml = "<domain type='kvm'><name>g1</name><memory unit='MiB'>128</memory><vcpu>1</vcpu></domain>";
        Self::answer(if there { Ok(xml.to_owned()) } else { Err(no_domain()) })
    }
    fn named(&self, _: String) -> Answer<Option<ServerId>> {
        Self::answer(Ok(None))
    }
    fn inspect(&self, _: ServerId) -> Answer<Inspection> {
        Self::answer(Ok(Inspection::default()))
    }
    fn disk_usage(&self, _: ServerId, _: Vec<String>) -> Answer<Vec<DiskUsage>> {
        Self::answer(Ok(Vec::new()))
    }
    fn job(&self, _: ServerId) -> Answer<JobSample> {
        let state = self.state();
        Self::answer(if state.domain.is_some() { Ok(state.sample.clone()) } else { Err(no_domain()) })
    }
    fn capabilities(&self, _: Machine) -> Answer<String> {
        Self::answer(Ok("<domainCapabilities/>".to_owned()))
    }
    fn compare_cpu(&self, _: Machine, _: String) -> Answer<CpuComparison> {
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
        self.state().actions.push(action);
        Self::answer(Ok(()))
    }
    fn define(&self, _: String) -> Answer<()> {
        Self::answer(Ok(()))
    }
}

/// How the conductor answers.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) watch: Vec<Watch>,
    pub(crate) refuses: bool,
    pub(crate) abort_requested: bool,
    pub(crate) is_silent: bool,
}

/// One agent, its hypervisor, and the conductor that the test plays.
pub(crate) struct Stage {
    pub(crate) of: OfAttempt,
    pub(crate) driver: Arc<FakeDriver>,
    pub(crate) life: Life,
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) conductor: Bus,
    pub(crate) broker: MemoryBroker,
    pub(crate) reports: mpsc::UnboundedReceiver<MigrationReport>,
    pub(crate) ups: mpsc::UnboundedReceiver<HostUp>,
}

impl Stage {
    /// Starts the agent; `set` writes the script before it introduces itself.
    pub(crate) async fn new(set: impl FnOnce(&mut Script, &FakeDriver, OfAttempt)) -> Self {
        let of = OfAttempt { migration: MigrationId(7), attempt: Attempt(1), server: ServerId::random() };
        let broker = MemoryBroker::default();
        let (conductor, inbox) = broker.join(&Address::ConductorProcess(Incarnation::random()));
        let (driver, life, script) = (FakeDriver::new(of.server), Life::default(), Arc::new(Mutex::new(Script::default())));
        set(&mut script.lock().unwrap(), &driver, of);
        let (report_sender, reports) = mpsc::unbounded_channel();
        let (up_sender, ups) = mpsc::unbounded_channel();
        tokio::spawn(play_conductor(conductor.clone(), inbox, Arc::clone(&script), report_sender, up_sender));
        let config = from_toml("[DEFAULT]\nhost = \"h1\"\nmy_ip = \"192.0.2.1\"").unwrap();
        let (bus, arrivals) = broker.join(&address());
        let driver_of_agent: Arc<dyn Driver> = driver.clone();
        let ctx = Context::new(Options::new(&config).unwrap(), driver_of_agent, bus, life.clone());
        life.spawn(drover_compute::agent::serve(ctx, arrivals));
        let mut stage = Self { of, driver, life, script, conductor, broker, reports, ups };
        assert_eq!(stage.ups.recv().await.unwrap().domains.domains.len(), 1);
        stage
    }

    pub(crate) fn order(&self) -> ToCompute {
        let host = HostName::new("h2").unwrap();
        let destination = DestinationAddresses {
            connect_address: host.to_string(),
            host,
            inbound_address_set: false,
            graphics_listen_addr_vnc: None,
            graphics_listen_addr_spice: None,
        };
        let data = MigrateData {
            name: "g1".to_owned(),
            xml: String::new(),
            persistent: true,
            paused: false,
            block_migration: false,
            disks: Vec::new(),
            destination,
        };
        ToCompute::LiveMigration(WithData { of: self.of, data })
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

async fn play_conductor(
    bus: Bus,
    mut inbox: mpsc::Receiver<Incoming>,
    script: Arc<Mutex<Script>>,
    reports: mpsc::UnboundedSender<MigrationReport>,
    ups: mpsc::UnboundedSender<HostUp>,
) {
    while let Some(incoming) = inbox.recv().await {
        let to = incoming.reply_to();
        match incoming.decode::<ToConductor>().unwrap().message {
            ToConductor::HostUp(up) => {
                let watch = script.lock().unwrap().watch.clone();
                bus.reply(to.as_ref(), Ok(HostWelcome { watch })).await;
                ups.send(up).ok();
            }
            ToConductor::Grant(_) => {
                let answer = {
                    let script = script.lock().unwrap();
                    match (script.is_silent, script.refuses) {
                        (true, _) => None,
                        (_, true) => Some(Err(Fault::migration_error("not this attempt"))),
                        _ => Some(Ok(Granted { revision: Revision(5), abort_requested: script.abort_requested })),
                    }
                };
                if let Some(answer) = answer {
                    bus.reply(to.as_ref(), answer).await;
                }
            }
            ToConductor::Report(report) => drop(reports.send(report)),
            _ => {}
        }
    }
}
