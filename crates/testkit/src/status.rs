//! What `deploy/dev/bench status` shows.

use std::fmt::Write;
use std::fs;

use crate::bench::Bench;
use crate::error::Result;
use crate::host::Host;
use crate::state::HostKind;

/// Resident memory of a process in MiB, from `/proc/PID/status`.
pub fn resident_mib(pid: i32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib: f64 = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// The bench in words: processes, hosts, guests per host.
pub fn text(bench: &Bench) -> Result<String> {
    let cluster = bench.cluster()?;
    let mut text = format!("Bench {} of {}\n", bench.plan().name(), bench.checkout().display());
    // Writing to a String cannot fail.
    _ = writeln!(text, "API {}\n\n{:<16} {:>8} {:>9}  log", cluster.api, "process", "pid", "resident");
    for process in &cluster.processes {
        let memory = resident_mib(process.pid).map_or_else(|| "-".to_owned(), |mib| format!("{mib:.1} MiB"));
        _ = writeln!(text, "{:<16} {:>8} {memory:>9}  {}", process.name, process.pid, process.log.display());
    }
    for host in bench.hosts()? {
        _ = writeln!(text, "\n{} ({}, {})", host.name(), host.address(), host.libvirt_uri());
        match guests(&host) {
            Ok(lines) if lines.trim().is_empty() => text.push_str("    no guests\n"),
            Ok(lines) => lines.lines().for_each(|line| _ = writeln!(text, "    {}", line.trim())),
            Err(error) => _ = writeln!(text, "    {}", error.chain()),
        }
    }
    Ok(text)
}

fn guests(host: &Host) -> Result<String> {
    match host.kind() {
        HostKind::Bare => Ok("no libvirtd here: the agent uses libvirt's test driver".to_owned()),
        HostKind::Normal | HostKind::Older => host.virsh(["list", "--all"]),
    }
}
