//! One agent per host: two would answer for each other's work.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use drover_common::ids::HostName;

/// Where locks are; the kernel lets go of them when the process ends.
const DIRECTORY: &str = "/run";

/// Why this agent may not run.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another one does.
    #[error("another drover-compute for host {host} is running here: it holds {}", path.display())]
    Taken {
        /// The host.
        host: HostName,
        /// The lock.
        path: PathBuf,
    },
    /// The lock file cannot be used.
    #[error("lock file {} cannot be used", path.display())]
    Unusable {
        /// The lock.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// The right to be this host's agent, for as long as it lives.
#[derive(Debug)]
pub struct HostLock {
    _file: File,
}

impl HostLock {
    /// Takes it, or says who has it.
    pub fn take(host: &HostName) -> Result<Self, LockError> {
        Self::take_in(Path::new(DIRECTORY), host)
    }

    fn take_in(directory: &Path, host: &HostName) -> Result<Self, LockError> {
        let path = directory.join(format!("drover-compute-{host}.lock"));
        let unusable = |source| LockError::Unusable { path: path.clone(), source };
        let file = File::options().create(true).append(true).open(&path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken { host: host.clone(), path }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_of_the_same_host_is_refused() {
        let directory = std::env::temp_dir().join(format!("drover-lock-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let (one, other) = (HostName::new("h1").unwrap(), HostName::new("h2").unwrap());
        let first = HostLock::take_in(&directory, &one).unwrap();
        let refused = HostLock::take_in(&directory, &one).unwrap_err().to_string();
        assert!(refused.starts_with("another drover-compute for host h1 is running here"), "{refused}");
        assert!(HostLock::take_in(&directory, &other).is_ok());
        drop(first);
        assert!(HostLock::take_in(&directory, &one).is_ok());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
