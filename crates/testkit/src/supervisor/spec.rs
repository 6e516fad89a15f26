//! How a supervisor's namespaces look.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything `drover-bench supervise` needs; handed over as a JSON file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamespaceSpec {
    /// `root` or the host's name; for messages.
    pub name: String,
    /// Network namespace to enter (a name below `/run/netns`); the root one when absent.
    pub netns: Option<String>,
    /// Host name in the UTS namespace.
    pub hostname: Option<String>,
    /// Mounts to make, in this order.
    pub mounts: Vec<Mount>,
    /// Socket to serve.
    pub socket: PathBuf,
    /// Where to record the process's identity.
    pub pid_file: PathBuf,
    /// What the supervisor itself has to say.
    pub log: PathBuf,
}

/// One mount inside a host.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub enum Mount {
    /// An empty tmpfs.
    Tmpfs(PathBuf),
    /// A new directory (inside one of the tmpfs above).
    Directory(PathBuf),
    /// `source` becomes visible at `target`.
    Bind {
        /// File or directory to show.
        source: PathBuf,
        /// Where.
        target: PathBuf,
    },
}

impl Mount {
    /// A bind mount.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self::Bind { source: source.into(), target: target.into() }
    }
}
