//! Many hosts, many guests, several conductors that may be killed: each conductor has a runtime and a pool of its own, so that its
//! end takes everything with it but the rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use drover_common::bus::memory::MemoryBroker;
use drover_common::bus::{Address, Bus, Incoming};
use drover_common::config;
use drover_common::host::HostInventory;
use drover_common::ids::{HostName, Incarnation, MigrationId, ServerId};
use drover_common::lifecycle::Life;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{
    Authority, Bandwidth, CallState, DomainsReport, GrantKind, GrantRequest, Granted, GuestFacts, GuestState, HostFacts, JobKind,
    MigrationReport, OfAttempt, ToCompute, ToConductor,
};
use drover_common::server::VmState;
use drover_conductor::{Conductor, Settings};
use drover_store::migrations::{self, Migration};
use drover_store::servers::{self, Observer};
use drover_store::{Store, commit, hosts, line, services};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::world::{accept, described, domain, fit_for_arrival, fit_to_leave, host, inventory};

/// Connections of one conductor to the database.
const CONNECTIONS: u32 = 8;

/// The fleet.
pub(crate) struct Fleet {
    pub(crate) store: Store,
    pub(crate) hypervisors: Hypervisors,
    broker: MemoryBroker,
    options: String,
    database: PgPool,
    conductors: Vec<(Address, Runtime)>,
    api: Bus,
}

impl Fleet {
    /// Hosts h1, h2, … whose agents answer; their links carry so many MiB/s (0: any number). `options` are the conductors' of `[DEFAULT]`.
    pub(crate) async fn new(database: PgPool, hosts: usize, link_bandwidth_mib: u32, options: &str) -> Self {
        let (store, broker) = (Store::from_pool(database.clone()), MemoryBroker::default());
        let (api, _) = broker.join(&Address::ApiProcess(Incarnation::random()));
        let hypervisors = Hypervisors::default();
        for n in 1..=hosts {
            let (name, life) = (host(&format!("h{n}")), Incarnation::random());
            let roomy = HostInventory {
                vcpus: 10_000,
                memory_mb: 100_000_000,
                link_bandwidth_mib,
                ..inventory(name.as_str(), Uuid::new_v4())
            };
            let mut tx = store.begin().await.unwrap();
            let service = services::seen(&mut tx, &name, services::COMPUTE).await.unwrap();
            hosts::host_up(&mut tx, &name, service, life, &roomy).await.unwrap().unwrap();
            commit(tx).await.unwrap();
            let (bus, inbox) = broker.join(&Address::Compute(name.clone()));
            tokio::spawn(Agent { host: name, life, bus, hypervisors: hypervisors.clone() }.listen(inbox));
        }
        let options = format!("service_down_time = 600\n{options}");
        Self { store, hypervisors, broker, options, database, conductors: Vec::new(), api }
    }

    /// One more conductor.
    pub(crate) fn start_conductor(&mut self) {
        let config = format!("[DEFAULT]\n{}\n[conductor]\nsweep_interval = 1\nhost = \"c\"", self.options);
        let settings = Settings::new(&config::from_toml(&config).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let me = Incarnation::random();
        let address = Address::ConductorProcess(me);
        let guard = runtime.enter();
        let options = (*self.database.connect_options()).clone();
        let store = Store::from_pool(PgPoolOptions::new().max_connections(CONNECTIONS).connect_lazy_with(options));
        let (bus, inbox) = self.broker.join(&address);
        let conductor = Conductor::new(store, bus, settings, me, Life::default());
        runtime.spawn(async move { conductor.serve(inbox).await });
        drop(guard);
        self.conductors.push((address, runtime));
    }

    /// The oldest conductor is gone, in the middle of whatever it does.
    pub(crate) fn kill_conductor(&mut self) {
        let (address, runtime) = self.conductors.remove(0);
        runtime.shutdown_background();
        self.broker.leave(&address);
    }

    /// A guest that runs on this host.
    pub(crate) async fn guest(&self, n: usize, on: &HostName) -> ServerId {
        let server = ServerId(Uuid::from_u128(n as u128 + 1));
        self.hypervisors.lock().insert(server, Guest::new(on.clone()));
        let observer = Observer { host: on, node: on.as_str(), incarnation: Incarnation(Uuid::nil()), sequence: 0 };
        let mut report = domain(server, GuestState::Running);
        report.domain_name = format!("instance-{n}");
        let mut conn = self.store.connection().await.unwrap();
        servers::adopt(&mut conn, observer, &report, VmState::Active, ("project", "user")).await.unwrap();
        server
    }

    /// A request for a live migration.
    pub(crate) async fn live_migrate(&self, server: ServerId, to: Option<HostName>) -> MigrationId {
        let on = self.hypervisors.lock()[&server].host.clone();
        let (migration, message) = accept(&self.store, server, &on, to).await;
        self.api.cast(&Address::Conductor, &Envelope::new(message)).await.unwrap();
        migration
    }

    /// A request to abort; false if the migration has ended.
    pub(crate) async fn abort(&self, migration: MigrationId) -> bool {
        let mut conn = self.store.connection().await.unwrap();
        if !migrations::request_abort(&mut conn, migration, "admin").await.unwrap() {
            return false;
        }
        drop(conn);
        self.api.cast(&Address::Conductor, &Envelope::new(ToConductor::Wake { migration })).await.unwrap();
        true
    }

    pub(crate) async fn set_priority(&self, migration: MigrationId, priority: i32) {
        let mut conn = self.store.connection().await.unwrap();
        assert!(line::set_priority(&mut conn, migration, priority).await.unwrap());
    }

    /// All migrations, oldest first.
    pub(crate) async fn migrations(&self) -> Vec<Migration> {
        let mut conn = self.store.connection().await.unwrap();
        let mut all = migrations::list(&mut conn, &migrations::Listing::default()).await.unwrap();
        all.sort_by_key(|migration| migration.id);
        all
    }

    /// Waits until all migrations together are as wanted.
    pub(crate) async fn until(&self, within: Duration, wanted: impl Fn(&[Migration]) -> bool) -> Vec<Migration> {
        let waited = tokio::time::timeout(within, async {
            loop {
                let all = self.migrations().await;
                if wanted(&all) {
                    return all;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if let Ok(all) = waited.await {
            return all;
        }
        let told = |m: &Migration| format!("{} {} {:?} {:?}", m.id, m.status, m.destination, m.waiting_for);
        panic!("not in {within:?}: {:#?}", self.migrations().await.iter().map(told).collect::<Vec<_>>())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        while !self.conductors.is_empty() {
            self.kill_conductor();
        }
    }
}

/// Where each guest is, and what libvirt does with it.
#[derive(Clone)]
pub(crate) struct Hypervisors {
    guests: Arc<Mutex<HashMap<ServerId, Guest>>>,
    /// How long a copy takes; while there is nothing, copies go on for ever.
    copies_take: Arc<watch::Sender<Option<Duration>>>,
}

impl Default for Hypervisors {
    fn default() -> Self {
        Self { guests: Arc::default(), copies_take: Arc::new(watch::channel(Some(Duration::from_millis(20))).0) }
    }
}

pub(crate) struct Guest {
    host: HostName,
    call: Option<(OfAttempt, CallState)>,
    /// What its copy may take of the links.
    pub(crate) bandwidth_mib: Option<u64>,
    aborted: watch::Sender<bool>,
}

impl Guest {
    fn new(host: HostName) -> Self {
        Self { host, call: None, bandwidth_mib: None, aborted: watch::channel(false).0 }
    }
}

impl Hypervisors {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<ServerId, Guest>> {
        self.guests.lock().unwrap()
    }

    /// How long copies take from now on; those under way that wait for it, too.
    pub(crate) fn let_copies_take(&self, time: Option<Duration>) {
        self.copies_take.send_replace(time);
    }

    /// The guests on this host.
    pub(crate) fn guests_on(&self, host: &HostName) -> usize {
        self.lock().values().filter(|guest| guest.host == *host).count()
    }
}

/// A host's agent, with the hypervisor that it would have.
#[derive(Clone)]
struct Agent {
    host: HostName,
    life: Incarnation,
    bus: Bus,
    hypervisors: Hypervisors,
}

impl Agent {
    async fn listen(self, mut inbox: mpsc::Receiver<Incoming>) {
        while let Some(incoming) = inbox.recv().await {
            let answer = self.answer(incoming.decode::<ToCompute>().unwrap().message);
            self.bus.reply(incoming.reply_to().as_ref(), Ok(answer)).await;
            incoming.ack().await;
        }
    }

    fn answer(&self, message: ToCompute) -> Value {
        match message {
            ToCompute::DescribeGuest(_) => described(GuestState::Running),
            ToCompute::CheckCanLiveMigrateDestination(_) => fit_for_arrival(&self.host),
            ToCompute::CheckCanLiveMigrateSource(question) => fit_to_leave(question, Vec::new()),
            ToCompute::LiveMigration(order) => {
                if self.is_new(order.of) {
                    tokio::spawn(self.clone().migrate(order.of, order.data.destination.host));
                }
                Value::Null
            }
            ToCompute::LiveMigrationAbort(of) => {
                if let Some(guest) = self.hypervisors.lock().get(&of.server) {
                    guest.aborted.send_replace(true);
                }
                Value::Null
            }
            ToCompute::LiveMigrationBandwidth(Bandwidth { of, bandwidth_mib }) => {
                if let Some(guest) = self.hypervisors.lock().get_mut(&of.server) {
                    guest.bandwidth_mib = bandwidth_mib;
                }
                Value::Null
            }
            ToCompute::GetFacts(of) => json!(self.facts(of)),
            ToCompute::PostLiveMigrationAtDestination(order) => {
                let domains = vec![domain(order.of.server, GuestState::Running)];
                let incarnation = self.life;
                json!(DomainsReport {
                    incarnation,
                    sequence: 1,
                    complete: false,
                    domains,
                    gone: Vec::new(),
                    unreadable: Vec::new()
                })
            }
            _ => Value::Null,
        }
    }

    /// Notes an order; false if it is known.
    fn is_new(&self, of: OfAttempt) -> bool {
        let mut guests = self.hypervisors.lock();
        let guest = guests.get_mut(&of.server).unwrap();
        if guest.call.as_ref().is_some_and(|(known, _)| *known == of) {
            return false;
        }
        guest.call = Some((of, CallState::Pending));
        guest.aborted.send_replace(false);
        true
    }

    fn facts(&self, of: OfAttempt) -> HostFacts {
        let guests = self.hypervisors.lock();
        let guest = &guests[&of.server];
        let here = guest.host == self.host;
        let call = guest.call.as_ref().filter(|(known, _)| *known == of).map_or(CallState::Unseen, |(_, call)| call.clone());
        HostFacts {
            incarnation: self.life,
            guest: here.then_some(GuestFacts { state: GuestState::Running, persistent: true, marker: None }),
            job: (here && call == CallState::InCall).then_some(JobKind::MigrationOut),
            call,
        }
    }

    /// The source's part: leave, the call, the report.
    async fn migrate(self, of: OfAttempt, to: HostName) {
        let authority = Authority::Migration { attempt: of.attempt };
        let request = GrantRequest { migration: of.migration, authority, kind: GrantKind::Start, incarnation: self.life };
        let granted: Granted = loop {
            let question = Envelope::new(ToConductor::Grant(request));
            match self.bus.call(&Address::Conductor, &question, Duration::from_secs(2)).await {
                Ok(granted) => break granted,
                Err(drover_common::bus::CallError::Fault(_)) => return self.note(of, None),
                Err(_) => {} // Its conductor was killed: another one answers.
            }
        };
        let mut aborted = {
            let mut guests = self.hypervisors.lock();
            let guest = guests.get_mut(&of.server).unwrap();
            guest.call = Some((of, CallState::InCall));
            guest.bandwidth_mib = granted.bandwidth_mib;
            guest.aborted.subscribe()
        };
        let error = tokio::select! {
            () = self.copy() => None,
            _ = aborted.wait_for(|aborted| *aborted) => Some("canceled by client".to_owned()),
        };
        {
            let mut guests = self.hypervisors.lock();
            let guest = guests.get_mut(&of.server).unwrap();
            guest.bandwidth_mib = None;
            if error.is_none() {
                guest.host = to;
            }
        }
        self.note(of, Some(CallState::ended(error)));
        let OfAttempt { migration, attempt, server } = of;
        let (revision, facts) = (Some(granted.revision), self.facts(of));
        let report = MigrationReport { migration, attempt, server, revision, facts, result: None, not_started: None };
        self.bus.cast(&Address::Conductor, &Envelope::new(ToConductor::Report(report))).await.unwrap();
    }

    async fn copy(&self) {
        let mut takes = self.hypervisors.copies_take.subscribe();
        let time = *takes.wait_for(Option::is_some).await.unwrap();
        tokio::time::sleep(time.unwrap_or_default()).await;
    }

    fn note(&self, of: OfAttempt, state: Option<CallState>) {
        let mut guests = self.hypervisors.lock();
        let guest = guests.get_mut(&of.server).unwrap();
        guest.call = state.map(|state| (of, state));
    }
}
