//! One command at a time, and one checkout per bench.

use std::fs::{self, OpenOptions};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{BenchError, Result};
use crate::layout::Layout;
use crate::plan::Plan;

/// A lock on a file. The kernel releases it when the holder dies, however it dies.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: Flock<fs::File>,
}

impl FileLock {
    /// The lock that a command holds while it changes the bench.
    pub(crate) fn of_bench(plan: Plan) -> Result<Self> {
        Self::take(&plan.lock_file(), &format!("another command on bench {}", plan.number()))
    }

    /// The lock on the cache of downloads, which all benches of the machine share.
    pub(crate) fn of_cache() -> Result<Self> {
        Self::take(&Plan::cache_dir().join("lock"), "another download into the cache")
    }

    /// Takes the lock, waiting for its holder if need be.
    fn take(path: &Path, holder: &str) -> Result<Self> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(BenchError::io(format!("create {} (the bench needs root)", parent.display())))?;
        let open = || format!("open {} (the bench needs root)", path.display());
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(BenchError::io(open()))?;
        let lock = || format!("lock {}", path.display());
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, nix::Error::EAGAIN)) => {
                eprintln!("Waiting for {holder} to finish");
                Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| BenchError::sys(lock())(error))?
            }
            Err((_, error)) => return Err(BenchError::sys(lock())(error)),
        };
        Ok(Self { _file: file })
    }
}

/// Whom the bench belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Nobody: there is no bench of this number.
    Nobody,
    /// This checkout.
    Us,
    /// Another checkout, named here.
    Other(String),
}

/// Reads the owner's note.
pub(crate) fn ownership(plan: Plan, checkout: &Path) -> Result<Ownership> {
    let path = Layout::new(plan).owner();
    match fs::read_to_string(&path) {
        Ok(owner) if Path::new(owner.trim()) == checkout => Ok(Ownership::Us),
        Ok(owner) => Ok(Ownership::Other(owner.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ownership::Nobody),
        Err(error) => Err(BenchError::file("read", &path)(error)),
    }
}
