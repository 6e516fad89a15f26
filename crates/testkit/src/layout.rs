//! Where things lie in the bench's state directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::error::{BenchError, Result};
use crate::plan::Plan;
use crate::supervisor::Supervisor;
use crate::supervisor::protocol::StartSpec;

/// Name of the supervisor of what runs in the root network namespace.
pub(crate) const ROOT_SUPERVISOR: &str = "root";

/// Paths below the state directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { root: plan.state_dir() }
    }

    /// Which checkout the bench belongs to.
    pub(crate) fn owner(&self) -> PathBuf {
        self.root.join("owner")
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// Sockets and pid files.
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Notification sockets of the processes.
    pub(crate) fn notify(&self) -> PathBuf {
        self.root.join("run/notify")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    /// Configuration files of Drover's processes.
    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    /// The directory that hosts share.
    pub(crate) fn shared(&self) -> PathBuf {
        self.root.join("shared")
    }

    /// The bench's own CA.
    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    pub(crate) fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }

    pub(crate) fn rabbitmq(&self) -> PathBuf {
        self.root.join("rabbitmq")
    }

    /// What is private to a host.
    pub(crate) fn host_directory(&self, host: &str) -> PathBuf {
        self.root.join("hosts").join(host)
    }

    pub(crate) fn supervisor(&self, name: &str) -> Supervisor {
        Supervisor::new(name, &self.run(), &self.logs())
    }

    /// A spec with the bench's usual places; the caller changes what is special.
    pub(crate) fn start_spec(&self, name: &str, argv: Vec<String>) -> StartSpec {
        StartSpec {
            name: name.to_owned(),
            argv,
            env: BTreeMap::new(),
            user: None,
            directory: PathBuf::from("/"),
            log: self.log(name),
            notify_directory: self.notify(),
            ready_within_ms: 60_000,
            stop_signal: Signal::SIGTERM as i32,
        }
    }

    /// Creates the directories. Only root may look into what holds passwords and keys.
    pub(crate) fn create(&self) -> Result<()> {
        for directory in
            [self.notify(), self.logs(), self.config(), self.pki(), self.shared().join("disks"), self.shared().join("serial")]
        {
            fs::create_dir_all(&directory).map_err(BenchError::file("create", &directory))?;
        }
        set_mode(&self.pki(), 0o700)?;
        set_mode(&self.config(), 0o700)
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(BenchError::file("set the permissions of", path))
}
