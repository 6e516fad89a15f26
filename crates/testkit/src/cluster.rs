//! `.dev/cluster.json` (`.dev9/cluster.json` for bench 9): where everything is, for tests and tools.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::error::{BenchError, Result};
use crate::identity::outer_pid;
use crate::layout::ROOT_SUPERVISOR;
use crate::state::{State, write_json};
use crate::{postgres, rabbitmq};

/// The bench as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// URL of the REST API.
    pub api: String,
    /// Broker, with all rights.
    pub amqp_url: String,
    /// Database of the API and the conductor.
    pub database_url: String,
    /// The hosts.
    pub hosts: Vec<ClusterHost>,
    /// The processes that run.
    pub processes: Vec<ClusterProcess>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterHost {
    /// Name.
    pub name: String,
    /// IP address.
    pub address: String,
    /// libvirt connection URI, usable from the root namespace.
    pub libvirt_uri: String,
    /// Network namespace.
    pub netns: String,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterProcess {
    /// Name, e.g. `compute-h1`.
    pub name: String,
    /// Pid in the root PID namespace.
    pub pid: i32,
    /// Log file.
    pub log: PathBuf,
}

/// Looks at the bench.
pub(crate) fn describe(bench: &Bench, state: &State) -> Cluster {
    let plan = bench.plan();
    let hosts: Vec<_> = state.hosts.iter().map(|record| bench.host_of(record)).collect();
    let names = std::iter::once(ROOT_SUPERVISOR.to_owned()).chain(hosts.iter().map(crate::host::Host::name));
    let mut processes = Vec::new();
    for name in names {
        let supervisor = bench.layout().supervisor(&name);
        let (Some(identity), Ok(reports)) = (supervisor.identity(), supervisor.processes()) else {
            continue;
        };
        for report in reports.into_iter().filter(|report| report.ended.is_none()) {
            if let Some(pid) = outer_pid(identity.pid, report.pid) {
                processes.push(ClusterProcess { name: report.name, pid, log: report.log });
            }
        }
    }
    Cluster {
        api: format!("http://{}", plan.api()),
        amqp_url: rabbitmq::url(plan, &state.secrets),
        database_url: postgres::url(plan, &state.secrets),
        hosts: hosts
            .iter()
            .map(|host| ClusterHost {
                name: host.name(),
                address: host.address().to_string(),
                libvirt_uri: host.libvirt_uri(),
                netns: host.netns(),
            })
            .collect(),
        processes,
    }
}

/// Directory in the checkout with `cluster.json` and a link to the state: `.dev`, or `.dev9` for bench 9.
pub(crate) fn directory(bench: &Bench) -> PathBuf {
    let name = match bench.plan().number() {
        0 => ".dev".to_owned(),
        number => format!(".dev{number}"),
    };
    bench.checkout().join(name)
}

/// The file.
pub(crate) fn file(bench: &Bench) -> PathBuf {
    directory(bench).join("cluster.json")
}

/// Writes the file and the link beside it.
pub(crate) fn write(bench: &Bench, state: &State) -> Result<()> {
    let directory = directory(bench);
    fs::create_dir_all(&directory).map_err(BenchError::file("create", &directory))?;
    let (link, target) = (directory.join("state"), bench.plan().state_dir());
    if fs::read_link(&link).ok().as_deref() != Some(&target) {
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).map_err(BenchError::file("remove", &link))?;
        }
        std::os::unix::fs::symlink(&target, &link).map_err(BenchError::file("create", &link))?;
    }
    write_json(&file(bench), &describe(bench, state))
}
