//! The bench as a whole: the handle from which commands and tests reach everything else.

use std::path::{Path, PathBuf};

use crate::cluster::{self, Cluster};
use crate::command::run;
use crate::error::{BenchError, Result};
use crate::guest::{self, Guest, GuestSpec};
use crate::host::Host;
use crate::layout::Layout;
use crate::lock::{FileLock, Ownership, ownership};
use crate::plan::Plan;
use crate::process::Process;
use crate::state::{HostKind, HostRecord, State};
use crate::up::{self, UpOptions};
use crate::watch::GuestWatch;
use crate::{down, drover, network, postgres};

/// Environment variable with the checkout's path, set by `deploy/dev/bench`.
pub const CHECKOUT_VARIABLE: &str = "DROVER_CHECKOUT";

/// A handle on a bench; it may be up or not. Handles hold no lock: each change takes it for as long as it lasts.
#[derive(Debug, Clone)]
pub struct Bench {
    plan: Plan,
    checkout: PathBuf,
    quiet: bool,
}

impl Bench {
    /// The bench that `DROVER_BENCH` names, for this checkout.
    pub fn from_env() -> Result<Self> {
        Self::of(Plan::from_env()?)
    }

    /// The bench of this plan, for this checkout.
    pub fn of(plan: Plan) -> Result<Self> {
        let checkout = match std::env::var_os(CHECKOUT_VARIABLE) {
            Some(path) => PathBuf::from(path),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
        };
        let checkout = checkout.canonicalize().map_err(BenchError::file("find the checkout", &checkout))?;
        Ok(Self { plan, checkout, quiet: false })
    }

    /// The same bench, without progress lines.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Its plan of names and addresses.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// The checkout that it serves.
    pub fn checkout(&self) -> &Path {
        &self.checkout
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.plan)
    }

    /// Brings the bench to the wanted shape: starts what is missing, repairs what is broken, leaves alone what runs.
    pub fn up(&self, options: &UpOptions) -> Result<Cluster> {
        let _lock = FileLock::of_bench(self.plan)?;
        up::up(self, options)
    }

    /// Ends and removes everything but the cache of downloads.
    pub fn down(&self) -> Result<()> {
        let _lock = FileLock::of_bench(self.plan)?;
        down::down(self)
    }

    /// Addresses, hosts and processes, as in `.dev/cluster.json`, but read afresh.
    pub fn cluster(&self) -> Result<Cluster> {
        Ok(cluster::describe(self, &self.state()?))
    }

    /// All hosts.
    pub fn hosts(&self) -> Result<Vec<Host>> {
        Ok(self.state()?.hosts.into_iter().map(|record| Host::new(self.plan, record)).collect())
    }

    /// The host with this name.
    pub fn host(&self, name: &str) -> Result<Host> {
        Ok(Host::new(self.plan, self.state()?.host(name)?.clone()))
    }

    /// Adds a host of this kind and brings it up, with its agent if Drover runs.
    pub fn add_host(&self, kind: HostKind) -> Result<Host> {
        let _lock = FileLock::of_bench(self.plan)?;
        let mut state = self.state()?;
        let record = state.add_host(kind)?;
        state.save(&self.layout().state_file())?;
        up::up(self, &UpOptions::unchanged(&state))?;
        Ok(Host::new(self.plan, record))
    }

    /// Removes a host with everything on it.
    pub fn remove_host(&self, name: &str) -> Result<()> {
        let _lock = FileLock::of_bench(self.plan)?;
        let mut state = self.state()?;
        let host = Host::new(self.plan, state.host(name)?.clone());
        host.supervisor().kill()?;
        network::remove_netns(&host.netns())?;
        let directory = self.layout().host_directory(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory).map_err(BenchError::file("remove", &directory))?;
        }
        state.hosts.retain(|record| record.name() != name);
        state.save(&self.layout().state_file())?;
        cluster::write(self, &state)
    }

    /// A process by its name in `cluster.json`.
    pub fn process(&self, name: &str) -> Result<Process> {
        Process::new(self, name)
    }

    /// Stops an additional conductor and forgets it: `up` will not start it again.
    pub fn remove_conductor(&self, name: &str) -> Result<()> {
        if drover::SERVICES.contains(&name) {
            return Err(BenchError::Refused(format!("{name} belongs to every bench; `stop` stops it")));
        }
        self.process(name)?.stop()?;
        self.change(|state| {
            state.services.retain(|service| service != name);
            Ok(())
        })
    }

    /// Sets (or with `None` removes) an environment variable of a process, for its next start and all later ones: the way to
    /// change an option of one process, e.g. `DROVER_LIBVIRT__LIVE_MIGRATION_BANDWIDTH`.
    pub fn set_environment(&self, process: &str, key: &str, value: Option<&str>) -> Result<()> {
        self.change(|state| {
            let variables = state.environment.entry(process.to_owned()).or_default();
            match value {
                Some(value) => drop(variables.insert(key.to_owned(), value.to_owned())),
                None => drop(variables.remove(key)),
            }
            Ok(())
        })
    }

    /// Brings the database's schema up to date, as `up` does before it starts Drover's processes.
    pub fn migrate_database(&self) -> Result<()> {
        drover::migrate_database(self.plan, &self.state()?)
    }

    /// Runs SQL in Drover's database and returns what it prints: for measurements, which need more rows than there are guests.
    pub fn sql(&self, sql: &str) -> Result<String> {
        postgres::psql(self.plan, postgres::DATABASE, sql)
    }

    /// Runs the operators' command line, `drover`, against this bench's API and returns what it prints.
    pub fn drover<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        let mut command = std::process::Command::new(drover::program("drover")?);
        run(command.args(arguments).env("OS_ENDPOINT", format!("http://{}", self.plan.api())))
    }

    /// Runs a program in the network namespace that joins all hosts and the root namespace: each host's port there has its name.
    pub fn fabric<'a>(&self, program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        network::run_in_fabric(self.plan, program, arguments)
    }

    /// Makes and starts a guest; see [`GuestSpec`].
    pub fn create_guest(&self, spec: &GuestSpec) -> Result<Guest> {
        guest::create(self, spec)
    }

    /// A guest made before.
    pub fn guest(&self, name: &str) -> Result<Guest> {
        Ok(Guest::new(self, name, self.state()?.guest(name)?.clone()))
    }

    /// All guests made before.
    pub fn guests(&self) -> Result<Vec<Guest>> {
        Ok(self.state()?.guests.into_iter().map(|(name, record)| Guest::new(self, &name, record)).collect())
    }

    /// Ends a guest wherever it runs and removes its disks.
    pub fn remove_guest(&self, name: &str) -> Result<()> {
        guest::remove(self, name)
    }

    /// Begins to receive the guests' datagrams.
    pub fn watch(&self) -> Result<GuestWatch> {
        GuestWatch::start(self.plan)
    }

    /// The recorded state of a bench that is ours.
    pub(crate) fn state(&self) -> Result<State> {
        if let Ownership::Other(owner) = ownership(self.plan, &self.checkout)? {
            return Err(BenchError::Foreign { number: self.plan.number(), owner });
        }
        State::load(&self.layout().state_file())?
            .ok_or_else(|| BenchError::Refused(format!("bench {} is not up; run `deploy/dev/bench up`", self.plan.number())))
    }

    /// Changes the recorded state under the lock.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let _lock = FileLock::of_bench(self.plan)?;
        let mut state = self.state()?;
        let value = change(&mut state)?;
        state.save(&self.layout().state_file())?;
        Ok(value)
    }

    pub(crate) fn host_of(&self, record: &HostRecord) -> Host {
        Host::new(self.plan, record.clone())
    }
}
