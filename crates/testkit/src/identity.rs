//! Which process a recorded pid means. Pids are recycled, so a record holds the start time and the boot as well; nothing is ever
//! killed by a bare number or by name.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Result};
use crate::wait::wait_for;

/// A process that cannot be mistaken for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Pid in the root PID namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    start_ticks: u64,
    /// The boot during which it started.
    boot: String,
}

impl Identity {
    /// The identity of a process that runs now; `None` if there is none with this pid.
    pub fn of(pid: i32) -> Option<Self> {
        let start_ticks = start_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Self { pid, start_ticks, boot: boot() })
    }

    /// Reads a record; a missing or damaged one means that there is no such process.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
    }

    /// Writes the record.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text =
            serde_json::to_string(self).map_err(|error| BenchError::Refused(format!("cannot write a pid record: {error}")))?;
        fs::write(path, text).map_err(BenchError::file("write", path))
    }

    /// Whether this very process still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Kills the process if it still is the one recorded, and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), Signal::SIGKILL) {
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(error) => return Err(BenchError::sys(format!("kill process {}", self.pid))(error)),
        }
        wait_for(&format!("the end of process {}", self.pid), Duration::from_secs(20), || !self.is_alive())
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The start time out of `/proc/PID/stat`; `None` for a zombie. The command name (second field) may hold blanks and parentheses,
/// so fields are counted from the last one.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The pid in the root namespace of process `inner` of the PID namespace whose first process is `init`.
pub fn outer_pid(init: i32, inner: i32) -> Option<i32> {
    let namespace = fs::read_link(format!("/proc/{init}/ns/pid")).ok()?;
    let wanted = inner.to_string();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let innermost = status.lines().find_map(|line| line.strip_prefix("NSpid:")).and_then(|pids| pids.split_whitespace().last());
        if innermost == Some(wanted.as_str()) && fs::read_link(entry.path().join("ns/pid")).is_ok_and(|link| link == namespace) {
            return Some(pid);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_an_odd_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 9 9";
        assert_eq!(start_ticks(stat), Some(777));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        assert_eq!(start_ticks("42 (x) Z 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 9 9"), None);
    }

    #[test]
    fn we_are_alive_and_not_somebody_else() {
        let me = Identity::of(i32::try_from(std::process::id()).expect("pids fit")).expect("we run");
        assert!(me.is_alive());
        let other = Identity { start_ticks: me.start_ticks + 1, ..me };
        assert!(!other.is_alive(), "a recycled pid is another process");
    }
}
