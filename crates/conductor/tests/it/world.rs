//! Two hosts, one guest, a conductor.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use drover_common::bus::memory::MemoryBroker;
use drover_common::bus::{Address, Bus, Incoming};
use drover_common::config;
use drover_common::doctor::own_clock;
use drover_common::host::HostInventory;
use drover_common::ids::{HostName, Incarnation, MigrationId, RequestId, ServerId};
use drover_common::lifecycle::Life;
use drover_common::migration::JobResult;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{
    Arrival, Authority, CallState, CheckSource, DestinationAddresses, DestinationCheck, Diagnose, DomainReport, DomainsReport,
    Extent, GrantKind, GrantRequest, Granted, GuestDescription, GuestFacts, GuestState, HostDiagnosis, HostFacts, ImagePiece,
    Marker, MigrateData, MigrateDisk, MigrateServer, MigrationReport, OfAttempt, Peer, Reach, StorageProbe, ToCompute, ToConductor,
};
use drover_common::server::{Flavor, TaskState, VmState};
use drover_common::telemetry;
use drover_conductor::{Conductor, Settings};
use drover_store::migrations::{self, Migration, NewMigration};
use drover_store::servers::{self, Observer, Server};
use drover_store::{Store, actions, commit, hosts, services};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// The longest that anything here may take.
const SOON: Duration = Duration::from_secs(30);

pub(crate) fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

/// The hosts h1 and h2, the guest on h1, a conductor at work.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) server: ServerId,
    pub(crate) h1: Agent,
    pub(crate) h2: Agent,
    broker: MemoryBroker,
    life: Life,
    api: Bus,
}

impl World {
    /// A conductor that gives agents a second to answer.
    pub(crate) async fn new(pool: PgPool) -> Self {
        Self::with_options(pool, "rpc_response_timeout = 1").await
    }

    /// The same with these options of `[DEFAULT]`.
    pub(crate) async fn with_options(pool: PgPool, default: &str) -> Self {
        let (store, broker, life) = (Store::from_pool(pool), MemoryBroker::default(), Life::default());
        let config = format!("[DEFAULT]\n{default}\n[conductor]\nsweep_interval = 1\nhost = \"c1\"");
        let config = config::from_toml(&config).unwrap();
        let me = Incarnation::random();
        let (bus, inbox) = broker.join(&Address::ConductorProcess(me));
        let conductor = Conductor::new(store.clone(), bus, Settings::new(&config).unwrap(), me, life.clone());
        tokio::spawn(async move { conductor.serve(inbox).await });
        let (api, _) = broker.join(&Address::ApiProcess(Incarnation::random()));
        let server = ServerId(Uuid::from_u128(1));
        let h1 = Agent::start(&broker, &store, "h1", server).await;
        let h2 = Agent::start(&broker, &store, "h2", server).await;
        h1.set_guest(Some(GuestState::Running), None);
        let mut conn = store.connection().await.unwrap();
        let observer = Observer { host: &h1.host, node: "h1", incarnation: h1.life, sequence: 0 };
        servers::adopt(&mut conn, observer, &domain(server, GuestState::Running), VmState::Active, ("project", "user"))
            .await
            .unwrap();
        drop(conn);
        Self { store, server, h1, h2, broker, life, api }
    }

    /// What the API does for `os-migrateLive`.
    pub(crate) async fn live_migrate(&self) -> MigrationId {
        let (migration, message) = accept(&self.store, self.server, &self.h1.host, None).await;
        self.api.cast(&Address::Conductor, &Envelope::new(message)).await.unwrap();
        migration
    }

    /// What the API does for a request to abort.
    pub(crate) async fn abort(&self, migration: MigrationId) {
        let mut conn = self.store.connection().await.unwrap();
        assert!(migrations::request_abort(&mut conn, migration, "admin").await.unwrap());
        drop(conn);
        self.api.cast(&Address::Conductor, &Envelope::new(ToConductor::Wake { migration })).await.unwrap();
    }

    /// Asks the conductor, as the API does.
    pub(crate) async fn ask<R: serde::de::DeserializeOwned>(&self, message: ToConductor) -> R {
        self.api.call(&Address::Conductor, &Envelope::new(message), SOON).await.unwrap()
    }

    pub(crate) async fn server(&self) -> Server {
        let mut conn = self.store.connection().await.unwrap();
        servers::get(&mut conn, self.server).await.unwrap().expect("rows of servers stay")
    }

    pub(crate) async fn migration(&self, id: MigrationId) -> Migration {
        let mut conn = self.store.connection().await.unwrap();
        migrations::get(&mut conn, id).await.unwrap().expect("rows of migrations stay")
    }

    /// Waits until the migration is as wanted.
    pub(crate) async fn until(&self, id: MigrationId, wanted: impl Fn(&Migration) -> bool) -> Migration {
        let waited = tokio::time::timeout(SOON, async {
            loop {
                let row = self.migration(id).await;
                if wanted(&row) {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        if let Ok(row) = waited.await {
            return row;
        }
        panic!("not in {SOON:?}: {:#?}", self.migration(id).await)
    }

    /// The agent's host is switched off: it answers nothing any more, and the broker has no queue of it.
    pub(crate) fn switch_off(&self, agent: &Agent) {
        self.broker.close_queue(&Address::Compute(agent.host.clone()));
    }

    /// An operator asserts that it is fenced.
    pub(crate) async fn force_down(&self, agent: &Agent) {
        let mut conn = self.store.connection().await.unwrap();
        assert!(services::set(&mut conn, &agent.host, None, None, Some(true)).await.unwrap());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.life.stop.cancel();
    }
}

pub(crate) fn domain(server: ServerId, state: GuestState) -> DomainReport {
    DomainReport {
        server,
        domain_name: "instance-1".to_owned(),
        display_name: "web".to_owned(),
        state,
        job: None,
        persistent: true,
        marker: None,
        flavor: Flavor { name: "small".to_owned(), vcpus: 1, memory_mb: 1024, root_gb: 1, ephemeral_gb: 0, swap_mb: 0 },
        owner: None,
    }
}

/// What an agent says of its host.
pub(crate) fn inventory(name: &str, host_uuid: Uuid) -> HostInventory {
    HostInventory {
        host_uuid,
        hypervisor_hostname: name.to_owned(),
        hypervisor_type: "QEMU".to_owned(),
        hypervisor_version: 10_000_002,
        libvirt_version: 11_003_000,
        host_ip: "192.0.2.1".to_owned(),
        vcpus: 8,
        memory_mb: 8192,
        local_gb: 100,
        free_disk_gb: 90,
        cpu_info: json!({}),
        link_bandwidth_mib: 0,
        migration_bandwidth_mib: 0,
    }
}

/// The disk whose content every agent gives out in circles.
pub(crate) const IN_CIRCLES: &str = "sdz";

/// The answer to `describe_guest`.
pub(crate) fn described(state: GuestState) -> Value {
    json!(GuestDescription {
        name: "instance-1".to_owned(),
        state,
        persistent: true,
        xml: "<domain/>".to_owned(),
        memory_mb: 1024,
        disks: Vec::new(),
        probes: Vec::new(),
        host_cpu: None,
        networks: Vec::new(),
    })
}

/// The answer to `check_can_live_migrate_destination` of a host that has nothing against it.
pub(crate) fn fit_for_arrival(host: &HostName) -> Value {
    json!(DestinationCheck {
        connect_address: host.to_string(),
        inbound_address_set: false,
        migration_port_probe: None,
        directories: Vec::new(),
        block_devices: Vec::new(),
        graphics_listen_addr_vnc: None,
        graphics_listen_addr_spice: None,
        links: Vec::new(),
        no_post_copy: None,
        stream: None,
        images: Some(Vec::new()),
        networks: Vec::new(),
        consoles: Vec::new(),
    })
}

/// The answer to `check_can_live_migrate_source` of a host that has nothing against it.
pub(crate) fn fit_to_leave(question: CheckSource, disks: Vec<MigrateDisk>) -> Value {
    json!(MigrateData {
        name: question.guest.name,
        xml: question.guest.xml,
        persistent: true,
        paused: false,
        block_migration: false,
        no_post_copy: None,
        connect_timeout_s: None,
        stream: None,
        no_way_back: None,
        disks,
        destination: DestinationAddresses {
            host: question.destination_host,
            connect_address: question.found.connect_address,
            inbound_address_set: false,
            graphics_listen_addr_vnc: None,
            graphics_listen_addr_spice: None,
            networks: Vec::new(),
            consoles: Vec::new(),
        },
    })
}

/// What the API does for `os-migrateLive`: the row; whoever is to lead it is told with the message.
pub(crate) async fn accept(
    store: &Store,
    server: ServerId,
    source: &HostName,
    requested_host: Option<HostName>,
) -> (MigrationId, ToConductor) {
    let request_id = RequestId::random();
    let mut tx = store.begin().await.unwrap();
    servers::claim_task_state(&mut tx, server, TaskState::Migrating).await.unwrap().expect("free");
    let name = actions::names::LIVE_MIGRATION;
    let action = actions::start(&mut tx, server, name, &request_id, "user", "project").await.unwrap();
    let new = NewMigration {
        server,
        source: source.clone(),
        requested_host,
        skip_scheduler: false,
        block_migration: None,
        disk_over_commit: None,
        user_id: "user".to_owned(),
        project_id: "project".to_owned(),
        request_id,
        action,
        reply_to: None,
        traceparent: telemetry::traceparent(),
    };
    let migration = migrations::insert(&mut tx, &new).await.unwrap();
    commit(tx).await.unwrap();
    (migration, ToConductor::MigrateServer(MigrateServer { migration, live: true, rebuild: false, flavor: None }))
}

/// An agent that follows a script. A clone is the same agent.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) host: HostName,
    pub(crate) life: Incarnation,
    server: ServerId,
    bus: Bus,
    state: Arc<Mutex<State>>,
    returns: Arc<Notify>,
}

#[derive(Default)]
struct State {
    guest: Option<GuestFacts>,
    /// Messages that stay without an answer.
    ignores: HashSet<&'static str>,
    /// Those of them that came.
    unanswered: HashSet<&'static str>,
    /// Whether libvirt's call returns.
    stays_in_call: bool,
    in_call: bool,
    /// How soon the guest that arrived was announced.
    announced_after_ms: Option<u64>,
    /// Of the last report.
    sequence: i64,
    /// The guest's disks.
    disks: Vec<MigrateDisk>,
    /// What was asked about files, in order.
    heard: Vec<String>,
    /// Each message with the trace that it came in.
    traces: Vec<(&'static str, Option<String>)>,
}

impl Agent {
    async fn start(broker: &MemoryBroker, store: &Store, name: &str, server: ServerId) -> Self {
        let (host, life) = (host(name), Incarnation::random());
        let mut tx = store.begin().await.unwrap();
        let service = services::seen(&mut tx, &host, services::COMPUTE).await.unwrap();
        hosts::host_up(&mut tx, &host, service, life, &inventory(name, Uuid::new_v4())).await.unwrap().unwrap();
        commit(tx).await.unwrap();
        let (bus, inbox) = broker.join(&Address::Compute(host.clone()));
        let agent = Self { host, life, server, bus, state: Arc::default(), returns: Arc::default() };
        tokio::spawn(agent.clone().listen(inbox));
        agent
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set_guest(&self, state: Option<GuestState>, marker: Option<Marker>) {
        self.state().guest = state.map(|state| GuestFacts { state, persistent: true, marker });
    }

    /// Leaves this message without an answer from now on.
    pub(crate) fn ignore(&self, message: &'static str) {
        self.state().ignores.insert(message);
    }

    /// Whether this message came since it is left without an answer.
    pub(crate) fn was_asked(&self, message: &'static str) -> bool {
        self.state().unanswered.contains(message)
    }

    /// Answers this message again.
    pub(crate) fn answer_again(&self, message: &'static str) {
        let mut state = self.state();
        state.ignores.remove(message);
        state.unanswered.remove(message);
    }

    /// The guest has these disks, with what is decided on them.
    pub(crate) fn set_disks(&self, disks: Vec<MigrateDisk>) {
        self.state().disks = disks;
    }

    /// What was asked about files, in order.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.state().heard.clone()
    }

    fn hear(&self, what: String) {
        self.state().heard.push(what);
    }

    /// Each message so far, with the trace that it came in.
    pub(crate) fn traces(&self) -> Vec<(&'static str, Option<String>)> {
        self.state().traces.clone()
    }

    /// libvirt's call does not return.
    pub(crate) fn stay_in_call(&self) {
        self.state().stays_in_call = true;
    }

    /// The guest that arrives is announced so soon.
    pub(crate) fn announces_after(&self, milliseconds: u64) {
        self.state().announced_after_ms = Some(milliseconds);
    }

    /// It returns after all, and the guest has arrived.
    pub(crate) fn return_from_call(&self) {
        self.returns.notify_one();
    }

    /// A report about all domains, with the next number or the one given.
    pub(crate) async fn report(&self, sequence: i64, domains: Vec<DomainReport>, unreadable: Vec<ServerId>) {
        let report = DomainsReport { incarnation: self.life, sequence, complete: true, domains, gone: Vec::new(), unreadable };
        self.bus.cast(&Address::Conductor, &Envelope::new(ToConductor::Domains(report))).await.unwrap();
    }

    /// Asks the conductor, as an agent does at its start.
    pub(crate) async fn ask<R: serde::de::DeserializeOwned>(&self, message: ToConductor) -> R {
        self.bus.call(&Address::Conductor, &Envelope::new(message), SOON).await.unwrap()
    }

    async fn listen(self, mut inbox: mpsc::Receiver<Incoming>) {
        while let Some(incoming) = inbox.recv().await {
            let Envelope { message, traceparent, .. } = incoming.decode::<ToCompute>().unwrap();
            self.state().traces.push((message.name(), traceparent));
            if self.leaves_unanswered(message.name()) {
                continue;
            }
            if let Some(answer) = self.answer(message) {
                self.bus.reply(incoming.reply_to().as_ref(), Ok(answer)).await;
            }
            incoming.ack().await;
        }
    }

    fn leaves_unanswered(&self, message: &'static str) -> bool {
        let mut state = self.state();
        let ignored = state.ignores.contains(message);
        if ignored {
            state.unanswered.insert(message);
        }
        ignored
    }

    fn answer(&self, message: ToCompute) -> Option<Value> {
        let answer = match message {
            ToCompute::DescribeGuest(_) => described(self.state().guest.as_ref()?.state),
            ToCompute::CheckCanLiveMigrateDestination(_) => fit_for_arrival(&self.host),
            ToCompute::CheckCanLiveMigrateSource(question) => fit_to_leave(question, self.state().disks.clone()),
            // Two pieces, of which the second is all zeros.
            ToCompute::ReadImage(asked) => {
                self.hear(format!("read {} {}", asked.target, asked.offset));
                let first = asked.offset == 0;
                let extents = if first { vec![Extent { offset: 0, content: vec![1] }] } else { Vec::new() };
                let next = if asked.target == IN_CIRCLES { Some(asked.offset) } else { first.then_some(4096) };
                json!(ImagePiece { extents, next })
            }
            ToCompute::WriteImage(order) => {
                self.hear(format!("write {} {:?}", order.target, order.piece.extents));
                Value::Null
            }
            ToCompute::ProbeStorage(_) => {
                self.hear("probe".to_owned());
                json!([StorageProbe { directory: "/d".to_owned(), written: Ok("p".to_owned()) }])
            }
            ToCompute::ForgetProbes(_) => {
                self.hear("forget".to_owned());
                return None;
            }
            ToCompute::PostLiveMigration(order) => {
                self.hear(format!("clean up, {:?}", order.probes.map(|probes| probes.len())));
                Value::Null
            }
            ToCompute::LiveMigration(order) => {
                tokio::spawn(self.clone().migrate(order.of));
                return None;
            }
            ToCompute::GetFacts(_) => {
                let call = if self.state().in_call { CallState::InCall } else { CallState::Unseen };
                json!(self.facts(call))
            }
            ToCompute::PostLiveMigrationAtDestination(_) => {
                let mut state = self.state();
                state.sequence = 7;
                let domains = state.guest.iter().map(|guest| domain(self.server, guest.state)).collect();
                let (incarnation, sequence) = (self.life, state.sequence);
                let report =
                    DomainsReport { incarnation, sequence, complete: false, domains, gone: Vec::new(), unreadable: Vec::new() };
                json!(Arrival { report, announced_after_ms: state.announced_after_ms })
            }
            ToCompute::Diagnose(question) => json!(self.diagnosis(question)),
            _ => Value::Null,
        };
        Some(answer)
    }

    fn diagnosis(&self, question: Diagnose) -> HostDiagnosis {
        let reached = |peer: Peer| Reach { host: peer.host, problem: None };
        HostDiagnosis {
            release: "0.1.0".to_owned(),
            clock: own_clock() + TimeDelta::hours(1),
            here: Peer { host: self.host.clone(), address: self.host.to_string(), migration_port: Some(49215) },
            libvirt_up: true,
            tcp_syn_retries: Some(6),
            certificates: Vec::new(),
            instances: None,
            reach: question.peers.into_iter().map(reached).collect(),
        }
    }

    fn facts(&self, call: CallState) -> HostFacts {
        HostFacts { incarnation: self.life, guest: self.state().guest.clone(), job: None, call }
    }

    /// The source's part: leave, the call, the report.
    async fn migrate(self, of: OfAttempt) {
        let authority = Authority::Migration { attempt: of.attempt };
        let request = GrantRequest { migration: of.migration, authority, kind: GrantKind::Start, incarnation: self.life };
        let granted: Granted = self.ask(ToConductor::Grant(request)).await;
        let stays_in_call = self.state().stays_in_call;
        if stays_in_call {
            self.state().in_call = true;
            self.returns.notified().await;
            self.state().in_call = false;
        }
        self.state().guest = None;
        let report = MigrationReport {
            migration: of.migration,
            attempt: of.attempt,
            server: of.server,
            revision: Some(granted.revision),
            facts: self.facts(CallState::ended(None)),
            result: Some(JobResult { downtime_ms: Some(30), ..JobResult::default() }),
            not_started: None,
        };
        self.bus.cast(&Address::Conductor, &Envelope::new(ToConductor::Report(report))).await.unwrap();
    }
}
