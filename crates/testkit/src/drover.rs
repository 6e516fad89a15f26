//! Drover's own processes: their configuration files and how they are started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;
use crate::error::{BenchError, Result};
use crate::layout::{Layout, set_mode};
use crate::libvirtd::{KNOWS_SHARED_FILESYSTEMS, installed_major_version};
use crate::plan::Plan;
use crate::state::{HostKind, HostRecord, State};
use crate::supervisor::protocol::StartSpec;
use crate::{postgres, rabbitmq};

/// The services that run once, beside one agent per host.
pub(crate) const SERVICES: [&str; 2] = ["api", "conductor-1"];

/// Nova's default flags, and UNSAFE for a libvirt that cannot be told that /srv/shared is shared.
const UNSAFE_FLAGS: &str = r#"live_migration_flag = [
    "VIR_MIGRATE_UNDEFINE_SOURCE",
    "VIR_MIGRATE_PERSIST_DEST",
    "VIR_MIGRATE_PEER2PEER",
    "VIR_MIGRATE_LIVE",
    "VIR_MIGRATE_UNSAFE",
]
"#;

/// Name of a host's compute agent in `cluster.json`.
pub(crate) fn agent_name(host: &str) -> String {
    format!("compute-{host}")
}

/// The directory of Drover's programs: that of the running program (its parent for test programs, which Cargo puts one level down).
pub(crate) fn binaries() -> Result<PathBuf> {
    let program = std::env::current_exe().map_err(BenchError::io("find this program"))?;
    let directory = program.parent().unwrap_or(Path::new("/"));
    let directory = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    Ok(directory.to_owned())
}

/// Refuses a build directory that hosts cannot see, because they have something else there.
pub(crate) fn check_binaries() -> Result<()> {
    let directory = binaries()?;
    if directory.starts_with("/run") || directory.starts_with("/srv") {
        return Err(BenchError::Refused(format!(
            "the programs are in {}, but every host has a /run and a /srv of its own; set CARGO_TARGET_DIR to another directory",
            directory.display()
        )));
    }
    Ok(())
}

/// A program of the workspace, or what to do if it is not built.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = binaries()?.join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(BenchError::Refused(format!(
        "{} is not built; run `deploy/dev/bench`, which builds it, or `up --only infrastructure` to do without Drover's processes",
        path.display()
    )))
}

/// Quotes a string for TOML. Our values are passwords, paths and addresses; a control character in one is a mistake.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn service_configuration(plan: Plan, state: &State) -> String {
    format!(
        r#"[DEFAULT]
transport_url = {amqp}

[database]
connection = {database}

[api]
osapi_compute_listen = {listen}
osapi_compute_listen_port = {port}
auth_strategy = "noauth"

[conductor]
host = "controller"

[log]
format = "json"
"#,
        amqp = quote(&rabbitmq::url(plan, &state.secrets)),
        database = quote(&postgres::url(plan, &state.secrets)),
        listen = quote(&plan.api().ip().to_string()),
        port = plan.api().port(),
    )
}

fn agent_configuration(plan: Plan, state: &State, host: &HostRecord, needs_unsafe: bool) -> String {
    let uri = if host.kind == HostKind::Bare { "test:///default" } else { "qemu:///system" };
    let flags = if needs_unsafe { UNSAFE_FLAGS } else { "" };
    format!(
        r#"[DEFAULT]
host = {name}
transport_url = {amqp}

[libvirt]
connection_uri = {uri}
live_migration_uri = "qemu+tcp://%s/system"
live_migration_inbound_addr = {address}
{flags}
[log]
format = "json"
"#,
        name = quote(&host.name()),
        amqp = quote(&rabbitmq::agent_url(plan, &state.secrets, &host.name())),
        uri = quote(uri),
        address = quote(&plan.address(host.index).to_string()),
    )
}

/// Path of a process's configuration file.
fn configuration_path(plan: Plan, process: &str) -> PathBuf {
    Layout::new(plan).config().join(format!("{process}.toml"))
}

fn write_configuration(plan: Plan, process: &str, text: &str) -> Result<PathBuf> {
    let path = configuration_path(plan, process);
    fs::write(&path, text).map_err(BenchError::file("write", &path))?;
    set_mode(&path, 0o600)?;
    Ok(path)
}

/// Brings the database's schema up to date: `drover db migrate`.
pub(crate) fn migrate_database(plan: Plan, state: &State) -> Result<()> {
    let path = write_configuration(plan, "cli", &service_configuration(plan, state))?;
    run(Command::new(program("drover")?).args(["db", "migrate", "--config-file"]).arg(path))?;
    Ok(())
}

fn start_spec(plan: Plan, state: &State, process: &str, program_name: &str, configuration: &str) -> Result<StartSpec> {
    let path = write_configuration(plan, process, configuration)?;
    let argv = vec![program(program_name)?.display().to_string(), "--config-file".to_owned(), path.display().to_string()];
    let mut spec = Layout::new(plan).start_spec(process, argv);
    spec.env.extend(state.environment.get(process).cloned().unwrap_or_default());
    Ok(spec)
}

/// How the API or a conductor is started.
pub(crate) fn service_start_spec(plan: Plan, state: &State, process: &str) -> Result<StartSpec> {
    let program_name = if process == "api" { "drover-api" } else { "drover-conductor" };
    start_spec(plan, state, process, program_name, &service_configuration(plan, state))
}

/// How a host's agent is started.
pub(crate) fn agent_start_spec(plan: Plan, state: &State, host: &HostRecord) -> Result<StartSpec> {
    let needs_unsafe = host.kind == HostKind::Older || installed_major_version()? < KNOWS_SHARED_FILESYSTEMS;
    let configuration = agent_configuration(plan, state, host, needs_unsafe);
    start_spec(plan, state, &agent_name(&host.name()), "drover-compute", &configuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(0).expect("a plan")
    }

    #[test]
    fn an_agent_gets_no_database_and_only_its_own_broker_user() {
        let host = HostRecord { index: 2, kind: HostKind::Normal };
        let text = agent_configuration(plan(), &State::default(), &host, false);
        assert!(!text.contains("database") && !text.contains("postgres"), "{text}");
        assert!(text.contains("amqp://compute-h2:") && text.contains("host = \"h2\""), "{text}");
        assert!(text.contains("live_migration_inbound_addr = \"10.213.0.2\""), "{text}");
    }

    #[test]
    fn unsafe_is_asked_for_only_where_libvirt_knows_no_shared_filesystems() {
        let host = HostRecord { index: 1, kind: HostKind::Older };
        assert!(agent_configuration(plan(), &State::default(), &host, true).contains("VIR_MIGRATE_UNSAFE"));
        assert!(!agent_configuration(plan(), &State::default(), &host, false).contains("VIR_MIGRATE_UNSAFE"));
    }

    #[test]
    fn a_host_without_libvirtd_uses_the_test_driver() {
        let host = HostRecord { index: 1, kind: HostKind::Bare };
        assert!(agent_configuration(plan(), &State::default(), &host, false).contains("connection_uri = \"test:///default\""));
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(quote("a\"b\\"), "\"a\\\"b\\\\\"");
    }
}
