//! What is said over a supervisor's socket: one request and one reply per connection, each a line of JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A request to a supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Start a process and answer when it is ready. A process of this name that runs already is left alone.
    Start(StartSpec),
    /// Send a signal and answer when the process has ended.
    Stop {
        /// The process's name.
        name: String,
        /// Signal number.
        signal: i32,
        /// How long it may take.
        within_ms: u64,
    },
    /// Tell about every process that was ever started.
    List,
}

/// How a process is started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartSpec {
    /// Its name, e.g. `libvirtd-h1`.
    pub name: String,
    /// Program (absolute path) and arguments.
    pub argv: Vec<String>,
    /// Environment in addition to a minimal one (`PATH`, `LC_ALL`).
    pub env: BTreeMap<String, String>,
    /// User and group to run as; root when absent.
    pub user: Option<(u32, u32)>,
    /// Working directory.
    pub directory: PathBuf,
    /// File that gets standard output and error (appended).
    pub log: PathBuf,
    /// Directory of the notification socket (`sd_notify` protocol); the process is ready when it says `READY=1`.
    pub notify_directory: PathBuf,
    /// How long it may take to become ready.
    pub ready_within_ms: u64,
    /// Signal for an orderly end.
    pub stop_signal: i32,
}

/// A supervisor's answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The process is ready.
    Started,
    /// The process has ended (or did not run).
    Stopped,
    /// All processes.
    Processes(Vec<ProcessReport>),
    /// It did not work; the text says why.
    Failed(String),
}

/// One process of a supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Its name.
    pub name: String,
    /// Its pid inside the supervisor's PID namespace.
    pub pid: i32,
    /// Its log file.
    pub log: PathBuf,
    /// Signal for an orderly end.
    pub stop_signal: i32,
    /// Whether it said `READY=1`.
    pub ready: bool,
    /// How it ended, if it did.
    pub ended: Option<String>,
}
