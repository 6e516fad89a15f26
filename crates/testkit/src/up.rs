//! Bringing the bench up: from nothing, from a running bench, or from whatever a kill or a reboot left.
//!
//! Every step looks first and does only what is missing, so there is one path for all of these. What does not depend on one another
//! runs at the same time: the broker takes longest, and the rest fits into its start-up.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Instant;

use crate::bench::Bench;
use crate::cluster::{self, Cluster};
use crate::down::{check_owner, clear};
use crate::drover::{self, program};
use crate::error::{BenchError, Result};
use crate::guest::image;
use crate::host::Host;
use crate::layout::ROOT_SUPERVISOR;
use crate::lock::Ownership;
use crate::network;
use crate::plan::HOSTS_MAX;
use crate::process::Process;
use crate::state::{HostKind, State};
use crate::{libvirtd, pki, postgres, rabbitmq};

/// Hosts of a new bench.
pub const HOSTS_DEFAULT: u8 = 3;

/// What `up` should bring about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpOptions {
    /// At least so many hosts; three on a new bench when absent.
    pub hosts: Option<u8>,
    /// At least so many of them with an older libvirt and QEMU, in addition.
    pub older: u8,
    /// Everything but Drover's own processes. Those that run are left alone.
    pub infrastructure_only: bool,
}

impl UpOptions {
    /// Options that change neither the hosts nor whether Drover runs.
    pub(crate) fn unchanged(state: &State) -> Self {
        Self { infrastructure_only: state.services.is_empty(), ..Self::default() }
    }
}

/// Runs a step and says how long it took (unless nothing worth a line happened).
fn step<T>(bench: &Bench, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let value = work()?;
    if !bench.is_quiet() {
        eprintln!("    {what:<48} {:>5.1} s", start.elapsed().as_secs_f64());
    }
    Ok(value)
}

/// Brings the bench up. The caller holds the lock.
pub(crate) fn up(bench: &Bench, options: &UpOptions) -> Result<Cluster> {
    let start = Instant::now();
    drover::check_binaries()?;
    let state = record_what_is_wanted(bench, options)?;
    let hosts: Vec<Host> = state.hosts.iter().map(|record| bench.host_of(record)).collect();
    if !bench.is_quiet() {
        eprintln!("==> Bench {} with {} hosts", bench.plan().name(), hosts.len());
    }
    if !network::is_intact(bench.plan(), &state.hosts) {
        step(bench, "network", || network::make_fabric(bench.plan()))?;
    }
    pki::prepare(bench.plan())?;
    let bench_program = program("drover-bench")?;
    start_infrastructure(bench, &state, &hosts, &bench_program)?;
    if !options.infrastructure_only {
        start_drover(bench, &state)?;
    }
    cluster::write(bench, &state)?;
    if !bench.is_quiet() {
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("==> Bench {} is up after {seconds:.1} s; see {}", bench.plan().name(), cluster::file(bench).display());
    }
    Ok(cluster::describe(bench, &state))
}

/// Takes the bench over if it is free, and writes down which hosts and services it should have.
fn record_what_is_wanted(bench: &Bench, options: &UpOptions) -> Result<State> {
    let (plan, layout) = (bench.plan(), bench.layout());
    if let Ownership::Other(owner) = check_owner(bench)? {
        eprintln!("==> Clearing away the dead bench of {owner}");
        clear(plan)?;
    }
    layout.create()?;
    fs::write(layout.owner(), format!("{}\n", bench.checkout().display())).map_err(BenchError::file("write", &layout.owner()))?;
    let known = State::load(&layout.state_file())?;
    let is_new = known.as_ref().is_none_or(|state| state.hosts.is_empty());
    let mut state = match known {
        Some(state) => state,
        None => State::fresh()?,
    };
    let wanted = options.hosts.unwrap_or(if is_new { HOSTS_DEFAULT } else { 0 });
    if wanted > HOSTS_MAX {
        return Err(BenchError::Refused(format!("{wanted} hosts: at most {HOSTS_MAX} have addresses")));
    }
    for (kind, count) in [(HostKind::Normal, wanted), (HostKind::Older, options.older)] {
        while state.hosts.iter().filter(|host| host.kind == kind).count() < usize::from(count) {
            state.add_host(kind)?;
        }
    }
    if !options.infrastructure_only {
        for name in drover::SERVICES {
            if !state.services.iter().any(|service| service == name) {
                state.services.push(name.to_owned());
            }
        }
    }
    state.save(&layout.state_file())?;
    Ok(state)
}

/// Broker, database, hosts and the guest's boot image, at the same time.
fn start_infrastructure(bench: &Bench, state: &State, hosts: &[Host], program: &Path) -> Result<()> {
    let root = bench.layout().supervisor(ROOT_SUPERVISOR);
    if root.processes().is_err() {
        root.kill()?;
        root.launch(program, &root.spec(None, None, Vec::new()))?;
    }
    thread::scope(|scope| {
        let mut work = vec![
            scope.spawn(|| ensure(bench, state, rabbitmq::PROCESS)),
            scope.spawn(|| ensure(bench, state, postgres::PROCESS)),
            scope.spawn(|| image::prepare(bench.plan()).map(drop)),
        ];
        // Hosts of the older kind share a download, so the first one must not race the others.
        if hosts.iter().any(|host| host.kind() == HostKind::Older) {
            work.push(scope.spawn(|| crate::older::prepare().map(drop)));
            join(work.drain(..))?;
        }
        for host in hosts {
            work.push(scope.spawn(|| ensure_host(bench, state, host, program)));
        }
        join(work.into_iter())
    })
}

/// Waits for all; the first error wins, but only when the others are done.
fn join<'scope>(work: impl Iterator<Item = thread::ScopedJoinHandle<'scope, Result<()>>>) -> Result<()> {
    let results: Vec<Result<()>> = work
        .map(|one| {
            one.join().unwrap_or_else(|_| Err(BenchError::Refused("a step of the bench panicked; that is a bug".to_owned())))
        })
        .collect();
    results.into_iter().collect()
}

/// Starts a process if it does not run.
fn ensure(bench: &Bench, state: &State, name: &str) -> Result<()> {
    let process = Process::with_state(bench, name, state)?;
    if process.is_running()? {
        return Ok(());
    }
    step(bench, name, || process.start_with(state))
}

/// A host with its namespaces, and its libvirtd if it has one.
fn ensure_host(bench: &Bench, state: &State, host: &Host, program: &Path) -> Result<()> {
    let plan = bench.plan();
    let supervisor = host.supervisor();
    let lives_here = supervisor.identity().is_some_and(|identity| network::is_netns_of(&host.netns(), identity.pid));
    if !lives_here || supervisor.processes().is_err() {
        supervisor.kill()?;
    }
    network::make_host(plan, state.host(&host.name())?)?;
    host.plug()?; // A test may have left it unplugged.
    if supervisor.identity().is_none() {
        step(bench, &format!("host {}", host.name()), || supervisor.launch(program, &host.namespace_spec()?))?;
    }
    if host.kind() == HostKind::Bare {
        return Ok(());
    }
    ensure(bench, state, &libvirtd::process_name(&host.name()))
}

/// Schema, then API, conductors and agents at the same time.
fn start_drover(bench: &Bench, state: &State) -> Result<()> {
    if state.services.is_empty() {
        return Ok(());
    }
    let agents = state.hosts.iter().map(|host| drover::agent_name(&host.name()));
    let names: Vec<String> = state.services.iter().cloned().chain(agents).collect();
    let mut missing = Vec::new();
    for name in names {
        if !Process::with_state(bench, &name, state)?.is_running()? {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    for name in ["drover-api", "drover-conductor", "drover-compute"] {
        program(name)?; // Better one clear word now than several half-started processes.
    }
    step(bench, "database schema", || drover::migrate_database(bench.plan(), state))?;
    thread::scope(|scope| {
        join(missing.iter().map(|name| scope.spawn(|| ensure(bench, state, name))).collect::<Vec<_>>().into_iter())
    })
}
