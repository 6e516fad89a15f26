//! Taking the bench down, also one that was killed half way or that a reboot left in pieces.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::bench::Bench;
use crate::cluster;
use crate::error::{BenchError, Result};
use crate::identity::Identity;
use crate::lock::{Ownership, ownership};
use crate::network;
use crate::plan::Plan;

/// Records of all supervisors that still run.
fn running_supervisors(plan: Plan) -> Vec<Identity> {
    let Ok(entries) = fs::read_dir(crate::layout::Layout::new(plan).run()) else {
        return Vec::new();
    };
    let records = entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "pid"));
    records.filter_map(|path| Identity::load(&path)).filter(Identity::is_alive).collect()
}

/// Whether anything of the bench runs.
pub(crate) fn is_alive(plan: Plan) -> bool {
    !running_supervisors(plan).is_empty()
}

/// Refuses if the bench belongs to another checkout that uses it; tells whether a dead one is to be cleared away. A bench
/// whose checkout is gone is nobody's any more.
pub(crate) fn check_owner(bench: &Bench) -> Result<Ownership> {
    let plan = bench.plan();
    let ownership = ownership(plan, bench.checkout())?;
    if let Ownership::Other(owner) = &ownership
        && is_alive(plan)
        && Path::new(owner).exists()
    {
        return Err(BenchError::Foreign { number: plan.number(), owner: owner.clone() });
    }
    Ok(ownership)
}

/// Ends everything and removes it. The caller holds the lock.
pub(crate) fn down(bench: &Bench) -> Result<()> {
    check_owner(bench)?;
    clear(bench.plan())?;
    let directory = cluster::directory(bench);
    for name in ["cluster.json", "state"] {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(BenchError::file("remove", &path)(error)),
            _ => {}
        }
    }
    match fs::remove_dir(&directory) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
            Err(BenchError::file("remove", &directory)(error))
        }
        _ => Ok(()),
    }
}

/// Ends the supervisors (the kernel ends what is below them), removes the network and the state.
pub(crate) fn clear(plan: Plan) -> Result<()> {
    for supervisor in running_supervisors(plan) {
        supervisor.kill()?;
    }
    network::remove_all(plan)?;
    let state = plan.state_dir();
    match fs::remove_dir_all(&state) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(BenchError::file("remove", &state)(error)),
        _ => Ok(()),
    }
}
