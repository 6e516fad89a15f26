//! The machine that figures were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use drover_testkit::{BenchError, Result};

use crate::cloud::Cloud;
use crate::methods::connect;

/// As far as it matters for the figures.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Processors that this program may use.
    pub cores: usize,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Version of libvirt.
    pub libvirt: String,
    /// Version of QEMU.
    pub qemu: String,
    /// Runnable processes at the start, on average of 1, 5 and 15 minutes.
    pub load_average: String,
    /// The commit that was measured, with a note if there were changes; empty if git cannot tell.
    pub commit: String,
}

impl Machine {
    /// Looks at it.
    pub(crate) fn look(cloud: &Cloud) -> Result<Self> {
        let libvirt = connect(&cloud.route()?.source)?;
        let failed = |error: virt::error::Error| BenchError::Refused(format!("libvirt does not tell its version: {error}"));
        Ok(Self {
            processor: value(&read("/proc/cpuinfo")?, "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: value(&read("/proc/meminfo")?, "MemTotal").as_deref().and_then(kib).unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            libvirt: version(libvirt.lib_version().map_err(failed)?),
            qemu: version(libvirt.hyp_version().map_err(failed)?),
            load_average: load_average()?,
            commit: commit(cloud.bench.checkout()),
        })
    }
}

/// Runnable processes, on average of the last 1, 5 and 15 minutes.
pub(crate) fn load_average() -> Result<String> {
    Ok(read("/proc/loadavg")?.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(BenchError::io(format!("read {path}")))
}

fn commit(checkout: &Path) -> String {
    let described = Command::new("git").arg("-C").arg(checkout).args(["describe", "--always", "--dirty"]).output();
    described.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The first value under this key of a file with lines `key: value`.
fn value(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}

/// The number in `4045676 kB`.
fn kib(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse().ok()
}

/// libvirt's numbers: a million for the major version, a thousand for the minor one.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_understood() {
        assert_eq!(value("processor\t: 0\nmodel name\t: Best CPU @ 3\nmodel name\t: x\n", "model name").unwrap(), "Best CPU @ 3");
        assert_eq!(value("MemTotal:        4045676 kB\n", "MemTotal").as_deref().and_then(kib), Some(4_045_676));
        assert_eq!(value("", "MemTotal"), None);
    }

    #[test]
    fn libvirts_numbers_are_versions() {
        assert_eq!(version(11_003_000), "11.3.0");
        assert_eq!(version(7_002_019), "7.2.19");
    }
}
