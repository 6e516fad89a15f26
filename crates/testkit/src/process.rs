//! One process of the bench: start, stop, kill, look at.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bench::Bench;
use crate::error::{BenchError, Result};
use crate::identity::outer_pid;
use crate::layout::ROOT_SUPERVISOR;
use crate::state::{HostKind, HostRecord, State, list};
use crate::supervisor::Supervisor;
use crate::supervisor::protocol::{ProcessReport, StartSpec};
use crate::{cluster, drover, libvirtd, postgres, rabbitmq};

/// An orderly end of any process must not take longer.
const STOP_WITHIN: Duration = Duration::from_mins(1);
const KILL_WITHIN: Duration = Duration::from_secs(10);

/// Which process a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Postgres,
    Rabbitmq,
    Service,
    Agent(HostRecord),
    Libvirtd(HostRecord),
}

fn role(name: &str, state: &State) -> Result<Role> {
    let is_conductor = || name.strip_prefix("conductor-").is_some_and(|number| number.parse::<u8>().is_ok());
    if name == postgres::PROCESS {
        return Ok(Role::Postgres);
    }
    if name == rabbitmq::PROCESS {
        return Ok(Role::Rabbitmq);
    }
    if name == "api" || is_conductor() {
        return Ok(Role::Service);
    }
    for host in &state.hosts {
        if name == drover::agent_name(&host.name()) {
            return Ok(Role::Agent(host.clone()));
        }
        if name == libvirtd::process_name(&host.name()) && host.kind != HostKind::Bare {
            return Ok(Role::Libvirtd(host.clone()));
        }
    }
    let per_host = state.hosts.iter().flat_map(|host| [drover::agent_name(&host.name()), libvirtd::process_name(&host.name())]);
    let known = ["api", "conductor-<n>", "postgres", "rabbitmq"].map(str::to_owned).into_iter().chain(per_host);
    Err(BenchError::Unknown { kind: "process", name: name.to_owned(), known: list(known) })
}

/// A handle on a process by name; it may run or not.
#[derive(Debug, Clone)]
pub struct Process {
    bench: Bench,
    name: String,
    role: Role,
    supervisor: Supervisor,
}

impl Process {
    pub(crate) fn new(bench: &Bench, name: &str) -> Result<Self> {
        Self::with_state(bench, name, &bench.state()?)
    }

    pub(crate) fn with_state(bench: &Bench, name: &str, state: &State) -> Result<Self> {
        let role = role(name, state)?;
        let supervisor = match &role {
            Role::Agent(host) | Role::Libvirtd(host) => bench.layout().supervisor(&host.name()),
            Role::Postgres | Role::Rabbitmq | Role::Service => bench.layout().supervisor(ROOT_SUPERVISOR),
        };
        Ok(Self { bench: bench.clone(), name: name.to_owned(), role, supervisor })
    }

    /// Its name in `cluster.json`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its log: standard output and error of all its runs.
    pub fn log_path(&self) -> PathBuf {
        self.bench.layout().log(&self.name)
    }

    /// What it has logged so far.
    pub fn log(&self) -> Result<String> {
        let path = self.log_path();
        let bytes = fs::read(&path).map_err(BenchError::file("read", &path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its pid in the root PID namespace; `None` if it does not run.
    pub fn pid(&self) -> Result<Option<i32>> {
        let init = self.supervisor.pid()?;
        Ok(self.report()?.and_then(|report| outer_pid(init, report.pid)))
    }

    /// Whether it runs.
    pub fn is_running(&self) -> Result<bool> {
        Ok(self.report()?.is_some())
    }

    fn report(&self) -> Result<Option<ProcessReport>> {
        Ok(self.supervisor.processes()?.into_iter().find(|report| report.name == self.name && report.ended.is_none()))
    }

    /// Starts it and waits until it is ready. Nothing happens if it runs.
    pub fn start(&self) -> Result<()> {
        let state = self.bench.state()?;
        if self.role == Role::Service && !state.services.contains(&self.name) {
            self.bench.change(|state| {
                state.services.push(self.name.clone());
                Ok(())
            })?;
        }
        self.start_with(&state)?;
        cluster::write(&self.bench, &self.bench.state()?)
    }

    /// [`Self::start`] for callers that hold the lock.
    pub(crate) fn start_with(&self, state: &State) -> Result<()> {
        self.supervisor.start(&self.start_spec(state)?)?;
        if self.role == Role::Postgres {
            postgres::create_database(self.bench.plan(), &state.secrets)?;
        }
        Ok(())
    }

    fn start_spec(&self, state: &State) -> Result<StartSpec> {
        let plan = self.bench.plan();
        match &self.role {
            Role::Postgres => {
                postgres::prepare(plan)?;
                postgres::start_spec(plan)
            }
            Role::Rabbitmq => {
                rabbitmq::prepare(plan, &state.secrets)?;
                rabbitmq::start_spec(plan)
            }
            Role::Service => drover::service_start_spec(plan, state, &self.name),
            Role::Agent(host) => drover::agent_start_spec(plan, state, host),
            Role::Libvirtd(host) => libvirtd::start_spec(plan, host),
        }
    }

    /// Asks it to end (SIGTERM; SIGINT for PostgreSQL) and waits until it has.
    pub fn stop(&self) -> Result<()> {
        let signal = self.report()?.map_or(Signal::SIGTERM as i32, |report| report.stop_signal);
        self.end(signal, STOP_WITHIN)
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::SIGKILL as i32, KILL_WITHIN)
    }

    fn end(&self, signal: i32, within: Duration) -> Result<()> {
        self.supervisor.stop(&self.name, signal, within)?;
        cluster::write(&self.bench, &self.bench.state()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut state = State::default();
        state.add_host(HostKind::Normal).expect("room");
        state.add_host(HostKind::Bare).expect("room");
        state
    }

    #[test]
    fn names_mean_what_cluster_json_says() {
        let state = state();
        assert_eq!(role("conductor-2", &state).expect("known"), Role::Service);
        assert_eq!(role("compute-h2", &state).expect("known"), Role::Agent(state.hosts[1].clone()));
        assert_eq!(role("libvirtd-h1", &state).expect("known"), Role::Libvirtd(state.hosts[0].clone()));
    }

    #[test]
    fn there_is_no_libvirtd_on_a_bare_host_and_no_agent_of_an_unknown_one() {
        for name in ["libvirtd-h2", "compute-h9", "conductor-x", ""] {
            assert!(matches!(role(name, &state()), Err(BenchError::Unknown { .. })), "{name}");
        }
    }
}
