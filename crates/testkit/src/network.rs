//! The bench's network: one namespace per host, all joined by a bridge in a namespace of its own.
//!
//! ```text
//!   root namespace            drover0-net               drover0-h1
//!   drover0 10.213.0.254 ──── root ┐ fabric ┌ h1 ────── up0 ┐ br0 10.213.0.1
//!                                  └────────┤               ├ vnet0 ── guest 10.213.0.100
//!                                           └ h2 … hN
//! ```
//!
//! The bridge is not in the root namespace because Docker's FORWARD policy and bridge-nf would drop what crosses it there.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::command::{command, run};
use crate::error::{BenchError, Result};
use crate::identity::Identity;
use crate::plan::Plan;
use crate::state::HostRecord;

const NETNS_DIRECTORY: &str = "/run/netns";

fn netns_file(name: &str) -> PathBuf {
    Path::new(NETNS_DIRECTORY).join(name)
}

/// Whether a network namespace of this name exists (a plain file of that name, left by a reboot, is none).
fn netns_exists(name: &str) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|data| data.dev()).ok();
    let namespaces = device(Path::new("/proc/self/ns/net"));
    namespaces.is_some() && device(&netns_file(name)) == namespaces
}

/// Whether the namespace `name` is the one that process `pid` lives in.
pub(crate) fn is_netns_of(name: &str, pid: i32) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
    let process = identity(Path::new(&format!("/proc/{pid}/ns/net")));
    process.is_some() && process == identity(&netns_file(name))
}

fn add_netns(name: &str) -> Result<()> {
    if netns_exists(name) {
        return Ok(());
    }
    if netns_file(name).exists() {
        fs::remove_file(netns_file(name)).map_err(BenchError::file("remove the stale file", &netns_file(name)))?;
    }
    run(&mut command("ip", ["netns", "add", name]))?;
    Ok(())
}

/// Ends every process in the namespace and removes it. Only for namespaces that carry the bench's own prefix.
pub(crate) fn remove_netns(name: &str) -> Result<()> {
    if netns_exists(name) {
        for pid in run(&mut command("ip", ["netns", "pids", name]))?.split_whitespace() {
            let identity = pid.parse().ok().and_then(Identity::of);
            if let Some(identity) = identity.filter(|identity| is_netns_of(name, identity.pid)) {
                identity.kill()?;
            }
        }
        run(&mut command("ip", ["netns", "delete", name]))?;
    } else if netns_file(name).exists() {
        fs::remove_file(netns_file(name)).map_err(BenchError::file("remove the stale file", &netns_file(name)))?;
    }
    Ok(())
}

/// All network namespaces whose name begins with the bench's prefix.
pub(crate) fn own_netns(plan: Plan) -> Vec<String> {
    let prefix = plan.netns("");
    let Ok(entries) = fs::read_dir(NETNS_DIRECTORY) else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(&prefix)).collect()
}

/// Runs several `ip` commands in one go, in a network namespace if one is named.
fn batch(netns: Option<&str>, lines: &[String]) -> Result<()> {
    let mut ip = match netns {
        Some(name) => command("ip", ["-n", name, "-batch", "-"]),
        None => command("ip", ["-batch", "-"]),
    };
    let what = || format!("set up the network ({})", netns.unwrap_or("root namespace"));
    let mut child =
        ip.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(BenchError::io(what()))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all((lines.join("\n") + "\n").as_bytes()).map_err(BenchError::io(what()))?;
    }
    let output = child.wait_with_output().map_err(BenchError::io(what()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(BenchError::Command {
        command: format!("ip -batch: {}", lines.join("; ")),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Names of the interfaces in a network namespace (`None`: the root one).
fn interfaces(netns: Option<&str>) -> Result<BTreeSet<String>> {
    let arguments: &[&str] = match netns {
        Some(name) => &["-n", name, "-o", "link"],
        None => &["-o", "link"],
    };
    let text = run(&mut command("ip", arguments))?;
    let name = |line: &str| line.split(": ").nth(1).and_then(|name| name.split('@').next()).map(str::to_owned);
    Ok(text.lines().filter_map(name).collect())
}

/// The middle of the network: the bridge in its namespace and the root namespace's link to it.
pub(crate) fn make_fabric(plan: Plan) -> Result<()> {
    let (fabric, root) = (plan.fabric_netns(), plan.name());
    add_netns(&fabric)?;
    let there = interfaces(Some(&fabric))?;
    if !there.contains("fabric") {
        batch(
            Some(&fabric),
            &[
                "link set lo up".to_owned(),
                "link add fabric type bridge mcast_snooping 0".to_owned(),
                "link set fabric up".to_owned(),
            ],
        )?;
    }
    if !there.contains("root") {
        if interfaces(None)?.contains(&root) {
            batch(None, &[format!("link delete {root}")])?;
        }
        batch(
            None,
            &[
                format!("link add {root} type veth peer name root netns {fabric}"),
                format!("address add {}/24 dev {root}", plan.root_address()),
                format!("link set {root} up"),
            ],
        )?;
        batch(Some(&fabric), &["link set root master fabric".to_owned(), "link set root up".to_owned()])?;
    }
    Ok(())
}

/// A host's namespace, bridge and link to the fabric. What is there already stays.
pub(crate) fn make_host(plan: Plan, host: &HostRecord) -> Result<()> {
    let (netns, fabric, name) = (plan.netns(&host.name()), plan.fabric_netns(), host.name());
    add_netns(&netns)?;
    let there = interfaces(Some(&netns))?;
    if !there.contains("br0") {
        let index = host.index;
        batch(
            Some(&netns),
            &[
                "link set lo up".to_owned(),
                format!("link add br0 address 52:54:00:d4:{:02x}:{index:02x} type bridge mcast_snooping 0", plan.number()),
                format!("address add {}/24 dev br0", plan.address(index)),
                "link set br0 up".to_owned(),
            ],
        )?;
    }
    if !there.contains("up0") {
        if interfaces(Some(&fabric))?.contains(&name) {
            batch(Some(&fabric), &[format!("link delete {name}")])?;
        }
        batch(
            Some(&netns),
            &[
                format!("link add up0 type veth peer name {name} netns {fabric}"),
                "link set up0 master br0".to_owned(),
                "link set up0 up".to_owned(),
            ],
        )?;
        batch(Some(&fabric), &[format!("link set {name} master fabric"), format!("link set {name} up")])?;
    }
    Ok(())
}

/// Runs a program in the middle of the network.
pub(crate) fn run_in_fabric<'a>(plan: Plan, program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let netns = plan.fabric_netns();
    run(command("ip", ["netns", "exec", &netns, program]).args(arguments))
}

/// Cuts a host off the network (its link to the fabric goes down) or joins it again. Guests on it are cut off as well.
pub(crate) fn set_link(plan: Plan, host: &str, up: bool) -> Result<()> {
    batch(Some(&plan.fabric_netns()), &[format!("link set {host} {}", if up { "up" } else { "down" })])
}

/// Whether the fabric and the links of all these hosts are in place.
pub(crate) fn is_intact(plan: Plan, hosts: &[HostRecord]) -> bool {
    let fabric = plan.fabric_netns();
    netns_exists(&fabric)
        && Path::new("/sys/class/net").join(plan.name()).exists()
        && interfaces(Some(&fabric))
            .is_ok_and(|there| there.contains("root") && hosts.iter().all(|host| there.contains(&host.name())))
}

/// Removes all network namespaces of the bench, with the processes in them, and the root namespace's link.
pub(crate) fn remove_all(plan: Plan) -> Result<()> {
    for name in own_netns(plan) {
        remove_netns(&name)?;
    }
    if Path::new("/sys/class/net").join(plan.name()).exists() {
        // Deleting the namespace takes its end of the link away a moment later; either may win.
        if let Err(error) = batch(None, &[format!("link delete {}", plan.name())])
            && Path::new("/sys/class/net").join(plan.name()).exists()
        {
            return Err(error);
        }
    }
    Ok(())
}
