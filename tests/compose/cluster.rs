//! The cluster: `docker-compose` and the REST API, as an operator has them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_testkit::{Look, wait_for, wait_until};
use serde_json::{Value, json};

static TURN: Mutex<()> = Mutex::new(());

/// The longest that anything in the cluster may take; guests are emulated, and containers start on two CPUs.
pub(crate) const SOON: Duration = Duration::from_secs(100);
pub(crate) const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
/// What is in the memory of both guests, and all over the disk of `beta` (`deploy/compose/host`).
pub(crate) const IN_MEMORY: &str = "MARKER-IN-THE-MEMORY-OF-A-GUEST";
pub(crate) const ON_DISK: &str = "MARKER-ON-THE-DISK-OF-A-GUEST";

pub(crate) struct Cluster {
    /// `deploy/compose`.
    directory: PathBuf,
    /// With the CA's certificate and curl's configuration, which has the password.
    scratch: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// The cluster that `deploy/compose/test` brought up, when its guests run.
    pub(crate) fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/compose");
        let cluster = Self { directory, scratch: PathBuf::from(env!("CARGO_TARGET_TMPDIR")), _turn: turn };
        let ca = cluster.exec("operator", ["cat", "/credentials/ca.pem"]);
        let password = cluster.exec("operator", ["cat", "/credentials/password"]);
        std::fs::write(cluster.scratch("ca.pem"), ca).expect("the CA is written");
        std::fs::write(cluster.scratch("curlrc"), format!("user = \"admin:{}\"\n", password.trim())).expect("curlrc is written");
        cluster.wait_until_guests_run();
        cluster
    }

    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Runs `docker-compose`.
    pub(crate) fn compose<S: AsRef<OsStr>>(&self, environment: &[(&str, &str)], arguments: impl IntoIterator<Item = S>) -> String {
        let mut command = Command::new("docker-compose");
        succeed(command.current_dir(&self.directory).envs(environment.iter().copied()).args(arguments))
    }

    /// Runs a program in a container, which must succeed, and returns what it printed.
    pub(crate) fn exec<'a>(&self, container: &'a str, command: impl IntoIterator<Item = &'a str>) -> String {
        succeed(&mut self.exec_command(container, &[], command))
    }

    /// Runs a program in a container that must not succeed, and returns all that it said.
    pub(crate) fn refused<'a>(
        &self,
        container: &'a str,
        environment: &[(&str, &str)],
        command: impl IntoIterator<Item = &'a str>,
    ) -> String {
        let output = output(&mut self.exec_command(container, environment, command));
        assert!(!output.status.success(), "it was not refused: {}", said(&output));
        said(&output)
    }

    fn exec_command<'a>(
        &self,
        container: &'a str,
        environment: &[(&str, &str)],
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Command {
        let mut command = Command::new("docker-compose");
        command.current_dir(&self.directory).args(["exec", "-T"]);
        for (name, value) in environment {
            command.arg("-e").arg(format!("{name}={value}"));
        }
        command.arg(container).args(arguments);
        command
    }

    /// What `docker inspect` shows of a container.
    pub(crate) fn inspect(&self, container: &str, format: &str) -> String {
        let id = self.compose(&[], ["ps", "-q", container]);
        succeed(Command::new("docker").args(["inspect", "--format", format, id.trim()])).trim().to_owned()
    }

    /// A container's address in a network of the cluster.
    pub(crate) fn address(&self, container: &str, network: &str) -> String {
        let project = std::env::var("COMPOSE_PROJECT_NAME").expect("deploy/compose/test names the project");
        self.inspect(container, &format!("{{{{(index .NetworkSettings.Networks \"{project}_{network}\").IPAddress}}}}"))
    }

    /// Makes the hosts anew with these variables of `compose.yaml`; what is on their volumes stays.
    pub(crate) fn recreate_hosts(&self, environment: &[(&str, &str)]) {
        self.compose(environment, ["up", "-d", "--no-deps"].into_iter().chain(HOSTS));
        self.wait_until_guests_run();
    }

    /// The API's URL on this machine.
    pub(crate) fn url() -> String {
        format!("https://127.0.0.1:{}", std::env::var("API_PORT").expect("deploy/compose/test chooses a port"))
    }

    /// What the API answers to curl with the password and these arguments; null if there is no answer yet.
    pub(crate) fn curl(&self, path: &str, arguments: &[&str]) -> Value {
        let mut command = Command::new("curl");
        command.arg("--config").arg(self.scratch("curlrc")).arg("--cacert").arg(self.scratch("ca.pem"));
        command.args(["--silent", "--header", "OpenStack-API-Version: compute 2.68"]).args(arguments);
        let output = output(command.arg(format!("{}{path}", Self::url())));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// A server by its name.
    pub(crate) fn server(&self, name: &str) -> Value {
        self.curl(&format!("/v2.1/servers/detail?name=^{name}$"), &[])["servers"][0].take()
    }

    /// The host that the server is on.
    pub(crate) fn host_of(&self, name: &str) -> String {
        self.server(name)["OS-EXT-SRV-ATTR:host"].as_str().expect("a host").to_owned()
    }

    /// Asks for a live migration and returns the destination: a host that the guest is not on.
    pub(crate) fn start_migration(&self, name: &str) -> &'static str {
        let server = self.server(name);
        let source = server["OS-EXT-SRV-ATTR:host"].as_str().expect("a host");
        let destination = HOSTS.into_iter().find(|host| *host != source).expect("another host");
        let body = json!({"os-migrateLive": {"host": destination, "block_migration": "auto"}}).to_string();
        let path = format!("/v2.1/servers/{}/action", server["id"].as_str().expect("an id"));
        let answer = self.curl(&path, &["--header", "Content-Type: application/json", "--data", &body]);
        assert_eq!(answer, Value::Null, "the migration of {name} was refused");
        destination
    }

    /// The newest migration of a server.
    pub(crate) fn migration(&self, name: &str) -> Value {
        let server = self.server(name);
        let mut listed =
            self.curl(&format!("/v2.1/os-migrations?limit=1&instance_uuid={}", server["id"].as_str().unwrap_or("")), &[]);
        let id = listed["migrations"][0].take()["id"].to_string();
        self.curl(&format!("/drover/v1/migrations/{id}"), &[])["migration"].take()
    }

    /// Waits until the newest migration of a server has completed, and the server is ACTIVE on `destination`.
    pub(crate) fn wait_until_moved(&self, name: &str, destination: &str) {
        wait_until(&format!("the migration of {name}"), SOON, || {
            let migration = self.migration(name);
            let status = migration["status"].as_str().unwrap_or_default();
            assert!(!["error", "failed", "cancelled"].contains(&status), "{migration:#}");
            let server = self.server(name);
            let there = server["OS-EXT-SRV-ATTR:host"] == destination && server["status"] == "ACTIVE";
            Ok(if status == "completed" && there { Look::Done(()) } else { Look::NotYet(migration.to_string()) })
        })
        .unwrap_or_else(|e| panic!("{e}"));
    }

    /// The last number that the guest's workload counted on this host's console, and how often a workload began there.
    pub(crate) fn console(&self, name: &str, host: &str) -> (u64, usize) {
        let text = self.exec(host, ["sh", "-c", &format!("cat /var/lib/libvirt/serial/{name}.log 2>/dev/null || true")]);
        let tick = |line: &str| line.strip_prefix("tick ")?.split(' ').next()?.parse().ok();
        (
            text.lines().filter_map(tick).next_back().unwrap_or_default(),
            text.lines().filter(|line| line.starts_with("boot ")).count(),
        )
    }

    /// Waits until the API answers and both guests run, starting those that went off with their host.
    fn wait_until_guests_run(&self) {
        for name in ["alpha", "beta"] {
            wait_for(&format!("the server {name}"), SOON, || self.server(name)["status"].is_string())
                .unwrap_or_else(|e| panic!("{e}"));
            let host = self.host_of(name);
            let virsh = |verb| output(&mut self.exec_command(&host, &[], ["virsh", "--quiet", verb, name]));
            wait_for(&format!("{name} on {host}"), SOON, || {
                if said(&virsh("domstate")).contains("shut off") {
                    virsh("start");
                }
                self.server(name)["status"] == "ACTIVE" && self.console(name, &host).0 > 0
            })
            .unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

/// Runs a command to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?} does not run: {e}"))
}

/// Runs a command that must succeed and returns what it printed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All that a program said.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
