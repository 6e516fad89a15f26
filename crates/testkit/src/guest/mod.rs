//! Guests: small machines whose workload ([`crate::workload`]) shows whether a migration did them harm.

mod cpio;
mod disks;
mod domain;
pub(crate) mod image;
mod kernel;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use disks::BASE_PATTERN;

use crate::bench::Bench;
use crate::error::{BenchError, Result};
use crate::host::{Host, SHARED};
use crate::layout::Layout;
use crate::state::{GuestRecord, HostKind};
use crate::wait::{Look, wait_until};
use crate::workload::report::INTERVAL_MS;

/// A machine type that the QEMU of every suite we support has, so that guests can move between old and new hosts.
pub const MACHINE: &str = "pc-i440fx-7.2";
/// A CPU model that QEMU can emulate completely, so that libvirt finds nothing missing.
pub const CPU: &str = "Westmere";
/// Where the console of a guest listens that has one on TCP ([`GuestSpec::console`]).
pub const CONSOLE_PORT: u16 = 10_000;
/// A guest boots in four to six seconds when the machine is idle, and several may boot at once.
const BOOT_WITHIN: Duration = Duration::from_mins(2);

/// Where a guest's disk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Disk {
    /// No disk.
    #[default]
    None,
    /// In the directory that all hosts share.
    Shared,
    /// In the host's own image directory: moving the guest means copying the disk.
    Local,
    /// Three disks and a config drive in the host's own image directory: an overlay on a base that each host may have of its own,
    /// an overlay on a base that all hosts share, a raw disk.
    Layers,
}

/// What guest to make. Start from [`GuestSpec::new`] and change what matters.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestSpec {
    /// Name of the domain.
    pub name: String,
    /// Host to start it on.
    pub host: String,
    /// Memory.
    pub memory_mib: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory that the workload writes per second; 0 only reads and checks.
    pub dirty_mib_s: f64,
    /// Size of the memory that the workload writes; chosen by the memory's size when absent.
    pub working_set_mib: Option<u32>,
    /// Time between two of its datagrams: the grain of every measured gap.
    pub interval_ms: u32,
    /// Its disk.
    pub disk: Disk,
    /// CPU model.
    pub cpu: String,
    /// Machine type.
    pub machine: String,
    /// No definition outlives the running guest.
    pub transient: bool,
    /// Start it with its processors stopped.
    pub paused: bool,
    /// A second serial console, on TCP: [`CONSOLE_PORT`] of the loopback address 127.0.0.1.
    pub console: bool,
}

impl GuestSpec {
    /// A guest of 128 MiB, one processor, no disk.
    pub fn new(name: &str, host: &str) -> Self {
        Self {
            name: name.to_owned(),
            host: host.to_owned(),
            memory_mib: 128,
            vcpus: 1,
            dirty_mib_s: 0.0,
            working_set_mib: None,
            interval_ms: INTERVAL_MS,
            disk: Disk::None,
            cpu: CPU.to_owned(),
            machine: MACHINE.to_owned(),
            transient: false,
            paused: false,
            console: false,
        }
    }

    /// The working set: a quarter of the memory when it is dirtied, little when it is only checked.
    fn working_set_mib(&self) -> u32 {
        self.working_set_mib.unwrap_or(if self.dirty_mib_s > 0.0 { self.memory_mib / 4 } else { 8 })
    }
}

/// Writes what the bench's guests boot into a directory, as `kernel` and `initramfs`, for guests elsewhere. Their kernel's command
/// line tells the workload what to do ([`crate::workload::report`]); without an address a guest goes without a network card.
pub fn export_boot_image(directory: &Path) -> Result<()> {
    image::export(directory)
}

/// A guest of the bench. Where it runs is asked of libvirt each time: migrations move it.
#[derive(Debug, Clone)]
pub struct Guest {
    bench: Bench,
    name: String,
    record: GuestRecord,
}

impl Guest {
    pub(crate) fn new(bench: &Bench, name: &str, record: GuestRecord) -> Self {
        Self { bench: bench.clone(), name: name.to_owned(), record }
    }

    /// Name of the domain.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// UUID of the domain; also the server's id in Nova's API.
    pub fn uuid(&self) -> &str {
        &self.record.uuid
    }

    /// The guest's IP address: its name for [`crate::watch::GuestWatch`].
    pub fn address(&self) -> Ipv4Addr {
        self.record.address
    }

    /// The serial console so far, from all hosts it ran on.
    pub fn console(&self) -> Result<String> {
        let path = self.console_path();
        fs::read_to_string(&path).map_err(BenchError::file("read", &path))
    }

    fn console_path(&self) -> PathBuf {
        outside_shared(&self.bench, &domain::serial_path(&self.name))
    }

    /// Path, on a host, of the base that each host may have of its own ([`Disk::Layers`]): the first disk lies on it.
    pub fn own_base(&self) -> String {
        disks::own_base(&self.name)
    }

    /// Path, on the host where the guest runs, of its first disk in the host's own image directory.
    pub fn local_disk(&self) -> String {
        disks::local(&self.name)
    }

    /// Path, on the host where the guest runs, of its config drive ([`Disk::Layers`]).
    pub fn config_drive(&self) -> String {
        disks::config_drive(&self.name)
    }

    /// Whether the workload runs: it has written a tick since the guest was made.
    fn ticks(&self) -> bool {
        self.console().is_ok_and(|text| text.lines().any(|line| line.starts_with("tick ")))
    }

    /// libvirt's word for the guest's state on a host (`running`, `paused`, `shut off`, …); `None` if the host does not know it.
    pub fn state_on(&self, host: &Host) -> Result<Option<String>> {
        match host.virsh(["domstate", self.uuid()]) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(BenchError::Command { output, .. }) if output.contains("failed to get domain") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A path below the shared directory, as seen from outside the hosts.
fn outside_shared(bench: &Bench, inside: &str) -> PathBuf {
    Layout::new(bench.plan()).shared().join(inside.trim_start_matches(SHARED).trim_start_matches('/'))
}

/// Defines (unless transient) and starts a guest, and waits until its workload runs (unless paused).
pub(crate) fn create(bench: &Bench, spec: &GuestSpec) -> Result<Guest> {
    domain::check(spec)?;
    let host = bench.host(&spec.host)?;
    if host.kind() == HostKind::Bare {
        return Err(BenchError::Refused(format!("{} has no libvirtd, so no guest can run there", spec.host)));
    }
    let image = image::prepare(bench.plan())?;
    let record = bench.change(|state| {
        if state.guests.contains_key(&spec.name) {
            return Err(BenchError::Refused(format!("there is a guest {:?} already; remove it with guest-rm", spec.name)));
        }
        let address = bench.plan().address(state.free_guest_byte()?);
        let record = GuestRecord { uuid: uuid::Uuid::new_v4().to_string(), address };
        state.guests.insert(spec.name.clone(), record.clone());
        Ok(record)
    })?;
    let guest = Guest::new(bench, &spec.name, record);
    let started = start(bench, &host, spec, &guest, &image);
    if started.is_err() {
        // The error that counts is the first one; what is left over goes with the next guest-rm or down.
        _ = remove(bench, &spec.name);
    }
    started.map(|()| guest)
}

fn start(bench: &Bench, host: &Host, spec: &GuestSpec, guest: &Guest, image: &image::BootImage) -> Result<()> {
    let console = guest.console_path();
    fs::write(&console, "").map_err(BenchError::file("write", &console))?;
    disks::create(host, spec)?;
    let xml = domain::xml(bench.plan(), spec, guest.uuid(), guest.address(), image);
    let inside = format!("/run/{}.xml", spec.name);
    let outside = host.outside_path(Path::new(&inside))?;
    fs::write(&outside, xml).map_err(BenchError::file("write", &outside))?;
    let mut arguments = if spec.transient {
        vec!["create", &inside]
    } else {
        host.virsh(["define", &inside])?;
        vec!["start", &spec.name]
    };
    if spec.paused {
        arguments.push("--paused");
    }
    host.virsh(arguments)?;
    if spec.paused {
        return Ok(());
    }
    wait_until(&format!("the workload of guest {}", spec.name), BOOT_WITHIN, || {
        if guest.ticks() {
            return Ok(Look::Done(()));
        }
        let console = guest.console()?;
        let runs = host.qemu_pid(guest.name())?.is_some();
        if !runs {
            return Err(BenchError::Refused(format!("the guest ended while it booted; its console says: {console}")));
        }
        Ok(Look::NotYet(format!("last line of its console: {:?}", console.lines().last().unwrap_or_default())))
    })
}

/// Ends a guest on whichever hosts have it, and removes its disks and its console.
pub(crate) fn remove(bench: &Bench, name: &str) -> Result<()> {
    let record = bench.state()?.guest(name)?.clone();
    let spec = GuestSpec::new(name, "");
    for host in bench.hosts()? {
        if host.kind() == HostKind::Bare || host.supervisor().identity().is_none() {
            continue;
        }
        let known = host.virsh(["list", "--all", "--uuid"])?;
        if known.contains(&record.uuid) {
            if host.virsh(["list", "--uuid"])?.contains(&record.uuid) {
                host.virsh(["destroy", &record.uuid])?;
            }
            if host.virsh(["list", "--all", "--uuid"])?.contains(&record.uuid) {
                host.virsh(["undefine", &record.uuid])?;
            }
        }
        for disk in [Disk::Local, Disk::Shared, Disk::Layers] {
            for path in disks::files(&GuestSpec { disk, ..spec.clone() }) {
                host.run("rm", ["-f", &path])?;
            }
        }
    }
    let console = outside_shared(bench, &domain::serial_path(name));
    match fs::remove_file(&console) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(BenchError::file("remove", &console)(error)),
        _ => {}
    }
    bench.change(|state| {
        state.guests.remove(name);
        Ok(())
    })
}
