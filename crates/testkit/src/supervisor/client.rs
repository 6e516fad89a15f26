//! The handle on a supervisor, used by commands and tests.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::launch::SUBCOMMAND;
use super::protocol::{ProcessReport, Reply, Request, StartSpec};
use super::spec::NamespaceSpec;
use crate::command::run;
use crate::error::{BenchError, Result};
use crate::identity::Identity;
use crate::wait::{Look, wait_until};

const UP_WITHIN: Duration = Duration::from_secs(10);
const LOG_TAIL_LINES: usize = 12;

/// A supervisor by its name (`root` or a host's); it may or may not run.
#[derive(Debug, Clone)]
pub struct Supervisor {
    name: String,
    socket: PathBuf,
    pid_file: PathBuf,
    run_directory: PathBuf,
    log: PathBuf,
}

impl Supervisor {
    /// The supervisor `name` of the bench whose sockets and pid files are in `run_directory` and whose logs are in `log_directory`.
    pub fn new(name: &str, run_directory: &Path, log_directory: &Path) -> Self {
        Self {
            name: name.to_owned(),
            socket: run_directory.join(format!("{name}.sock")),
            pid_file: run_directory.join(format!("{name}.pid")),
            run_directory: run_directory.to_owned(),
            log: log_directory.join(format!("supervisor-{name}.log")),
        }
    }

    /// Completes a spec with this supervisor's files.
    pub fn spec(&self, netns: Option<String>, hostname: Option<String>, mounts: Vec<super::spec::Mount>) -> NamespaceSpec {
        NamespaceSpec {
            name: self.name.clone(),
            netns,
            hostname,
            mounts,
            socket: self.socket.clone(),
            pid_file: self.pid_file.clone(),
            log: self.log.clone(),
        }
    }

    /// The process, if it runs.
    pub fn identity(&self) -> Option<Identity> {
        Identity::load(&self.pid_file).filter(Identity::is_alive)
    }

    /// Pid of the supervisor in the root PID namespace, or an error that says what to do.
    pub fn pid(&self) -> Result<i32> {
        let identity = self.identity().ok_or_else(|| {
            BenchError::Refused(format!("{} is not up; run `deploy/dev/bench up` (it repairs what is missing)", self.name))
        })?;
        Ok(identity.pid)
    }

    /// Starts the supervisor in the namespaces of `spec`, with `program` (drover-bench), and waits until it answers.
    pub fn launch(&self, program: &Path, spec: &NamespaceSpec) -> Result<()> {
        let spec_path = self.run_directory.join(format!("{}.spec.json", self.name));
        let text =
            serde_json::to_string_pretty(spec).map_err(|error| BenchError::Refused(format!("cannot write a spec: {error}")))?;
        fs::write(&spec_path, text).map_err(BenchError::file("write", &spec_path))?;
        run(Command::new(program).arg(SUBCOMMAND).arg(&spec_path).stdin(Stdio::null()).current_dir("/"))?;
        wait_until(&format!("the supervisor of {}", self.name), UP_WITHIN, || match self.processes() {
            Ok(_) => Ok(Look::Done(())),
            Err(_) if self.identity().is_none() => Err(BenchError::NotStarted {
                name: format!("the supervisor of {}", self.name),
                reason: log_tail(&self.log),
                log: self.log.display().to_string(),
            }),
            Err(error) => Ok(Look::NotYet(error.chain())),
        })
    }

    /// Starts a process and waits until it is ready.
    pub fn start(&self, spec: &StartSpec) -> Result<()> {
        match self.ask(&Request::Start(spec.clone()))? {
            Reply::Started => Ok(()),
            Reply::Failed(reason) => Err(BenchError::NotStarted {
                name: spec.name.clone(),
                reason: format!("{reason}\n{}", log_tail(&spec.log)),
                log: spec.log.display().to_string(),
            }),
            other => Err(self.odd(&other)),
        }
    }

    /// Sends `signal` to a process and waits until it has ended.
    pub fn stop(&self, name: &str, signal: i32, within: Duration) -> Result<()> {
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        match self.ask(&Request::Stop { name: name.to_owned(), signal, within_ms })? {
            Reply::Stopped => Ok(()),
            Reply::Failed(reason) => Err(BenchError::Refused(reason)),
            other => Err(self.odd(&other)),
        }
    }

    /// All processes it ever started, running or ended.
    pub fn processes(&self) -> Result<Vec<ProcessReport>> {
        match self.ask(&Request::List)? {
            Reply::Processes(processes) => Ok(processes),
            other => Err(self.odd(&other)),
        }
    }

    /// Kills the supervisor, and with it everything below.
    pub fn kill(&self) -> Result<()> {
        match Identity::load(&self.pid_file) {
            Some(identity) => identity.kill(),
            None => Ok(()),
        }
    }

    fn ask(&self, request: &Request) -> Result<Reply> {
        let mut stream =
            UnixStream::connect(&self.socket).map_err(BenchError::io(format!("reach the supervisor of {}", self.name)))?;
        let text =
            serde_json::to_string(request).map_err(|error| BenchError::Refused(format!("cannot write a request: {error}")))?;
        let lost = || format!("hear from the supervisor of {}", self.name);
        stream.write_all(format!("{text}\n").as_bytes()).map_err(BenchError::io(lost()))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map_err(BenchError::io(lost()))?;
        serde_json::from_str(&line)
            .map_err(|error| BenchError::Refused(format!("cannot understand the supervisor of {} ({error}): {line:?}", self.name)))
    }

    fn odd(&self, reply: &Reply) -> BenchError {
        BenchError::Refused(format!("the supervisor of {} gave an unexpected answer: {reply:?}", self.name))
    }
}

/// The last lines of a log, for error messages.
fn log_tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
