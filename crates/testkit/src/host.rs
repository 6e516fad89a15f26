//! A host of the bench: what is private to it, and how to do things inside it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;
use crate::error::{BenchError, Result};
use crate::identity::outer_pid;
use crate::layout::Layout;
use crate::libvirtd;
use crate::older;
use crate::pki;
use crate::plan::{HOSTS_MAX, Plan};
use crate::state::{HostKind, HostRecord};
use crate::supervisor::Supervisor;
use crate::supervisor::spec::{Mount, NamespaceSpec};

/// The directory that all hosts share, inside each host.
pub const SHARED: &str = "/srv/shared";
/// The directory of local disks, private to each host.
pub const LOCAL_IMAGES: &str = "/var/lib/libvirt/images";

/// Directories of libvirt that each host has for itself: name below the host's own directory, and where it shows.
const PRIVATE: [(&str, &str); 4] = [
    ("etc-libvirt", "/etc/libvirt"),
    ("var-lib-libvirt", "/var/lib/libvirt"),
    ("var-log-libvirt", "/var/log/libvirt"),
    ("var-cache-libvirt", "/var/cache/libvirt"),
];

/// The `/usr` of another Debian release, whose libvirt and QEMU all hosts run instead of the machine's.
const USR_VARIABLE: &str = "DROVER_BENCH_USR";

/// Where libvirt keeps what it knows of QEMU, below its cache directory.
const CAPABILITIES: &str = "qemu/capabilities";

/// A handle on one host.
#[derive(Debug, Clone)]
pub struct Host {
    plan: Plan,
    record: HostRecord,
    supervisor: Supervisor,
}

impl Host {
    pub(crate) fn new(plan: Plan, record: HostRecord) -> Self {
        let supervisor = Layout::new(plan).supervisor(&record.name());
        Self { plan, record, supervisor }
    }

    /// Name, e.g. `h1`.
    pub fn name(&self) -> String {
        self.record.name()
    }

    /// What kind of host it is.
    pub fn kind(&self) -> HostKind {
        self.record.kind
    }

    /// Its address on the bench's network.
    pub fn address(&self) -> std::net::Ipv4Addr {
        self.plan.address(self.record.index)
    }

    /// Its network namespace's name.
    pub fn netns(&self) -> String {
        self.plan.netns(&self.name())
    }

    /// URI of its libvirtd from anywhere on the bench's network.
    pub fn libvirt_uri(&self) -> String {
        match self.record.kind {
            HostKind::Bare => "test:///default".to_owned(),
            HostKind::Normal | HostKind::Older => format!("qemu+tcp://{}/system", self.address()),
        }
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// A command that will run inside the host's namespaces, as root.
    pub fn command<I, S>(&self, program: &str, arguments: I) -> Result<Command>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.supervisor.pid()?.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid", "--"])
            .arg(program)
            .args(arguments);
        Ok(command)
    }

    /// Runs a program inside the host and returns its standard output.
    pub fn run<I, S>(&self, program: &str, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        run(&mut self.command(program, arguments)?)
    }

    /// Runs `virsh` on the host's own libvirtd.
    pub fn virsh<I, S>(&self, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut command = self.command("virsh", ["--quiet", "--connect", "qemu:///system"])?;
        command.args(arguments);
        run(&mut command)
    }

    /// Pid of a guest's QEMU in the root PID namespace; `None` if the guest does not run here.
    pub fn qemu_pid(&self, guest: &str) -> Result<Option<i32>> {
        let init = self.supervisor.pid()?;
        let path = format!("/proc/{init}/root/run/libvirt/qemu/{guest}.pid");
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(None);
        };
        Ok(text.trim().parse().ok().and_then(|inner| outer_pid(init, inner)))
    }

    /// A path of the host as seen from outside.
    pub fn outside_path(&self, path: &Path) -> Result<PathBuf> {
        let root = PathBuf::from(format!("/proc/{}/root", self.supervisor.pid()?));
        Ok(root.join(path.strip_prefix("/").unwrap_or(path)))
    }

    /// Cuts the host (and its guests) off the network. The processes go on.
    pub fn unplug(&self) -> Result<()> {
        crate::network::set_link(self.plan, &self.name(), false)
    }

    /// Joins the host to the network again.
    pub fn plug(&self) -> Result<()> {
        crate::network::set_link(self.plan, &self.name(), true)
    }

    /// A power cut: everything on the host ends at once. What lies on its disks stays; `Bench::up` switches it on again.
    pub fn power_off(&self) -> Result<()> {
        self.supervisor.kill()
    }

    /// Prepares the host's directories and says how its namespaces look.
    pub(crate) fn namespace_spec(&self) -> Result<NamespaceSpec> {
        let layout = Layout::new(self.plan);
        let own = layout.host_directory(&self.name());
        let make = |path: &Path| fs::create_dir_all(path).map_err(BenchError::file("create", path));
        let mut mounts = vec![
            Mount::Tmpfs(PathBuf::from("/run")),
            Mount::Tmpfs(PathBuf::from("/srv")),
            Mount::Directory(PathBuf::from(SHARED)),
            Mount::bind(layout.shared(), SHARED),
        ];
        let usr = std::env::var_os(USR_VARIABLE);
        if let Some(usr) = &usr {
            mounts.push(Mount::bind(usr, "/usr"));
        }
        for (directory, target) in PRIVATE {
            make(&own.join(directory))?;
            make(Path::new(target))?;
            mounts.push(Mount::bind(own.join(directory), target));
        }
        make(&own.join("var-lib-libvirt/images"))?;
        if self.record.kind == HostKind::Normal && usr.is_none() {
            // What libvirt finds out about QEMU (a second of work per host) is the same on all hosts, and libvirt notices when
            // it is out of date; so it is kept with the downloads.
            let (target, source) = (own.join("var-cache-libvirt").join(CAPABILITIES), Plan::cache_dir().join("capabilities"));
            make(&target)?;
            make(&source)?;
            mounts.push(Mount::bind(source, Path::new("/var/cache/libvirt").join(CAPABILITIES)));
        }
        for (file, text) in [("hosts", hosts_file(self.plan)), ("hostname", format!("{}\n", self.name()))] {
            let path = own.join(file);
            fs::write(&path, text).map_err(BenchError::file("write", &path))?;
            mounts.push(Mount::bind(path, Path::new("/etc").join(file)));
        }
        if self.record.kind != HostKind::Bare {
            libvirtd::write_configuration(self.plan, &self.record, &own.join("etc-libvirt"))?;
            pki::write_certificates(self.plan, &self.record, &own.join("etc-libvirt/pki"))?;
        }
        if self.record.kind == HostKind::Older {
            mounts.extend(older::mounts(&older::prepare()?)?);
        }
        Ok(self.supervisor.spec(Some(self.netns()), Some(self.name()), mounts))
    }
}

/// `/etc/hosts` of every host: all names that the bench may ever have, so that it need not change.
fn hosts_file(plan: Plan) -> String {
    let mut text = format!("127.0.0.1 localhost\n{} broker db\n", plan.root_address());
    for index in 1..=HOSTS_MAX {
        // Writing to a String cannot fail.
        _ = writeln!(text, "{} {}", plan.address(index), Plan::host_name(index));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_and_the_services_resolve() {
        let text = hosts_file(Plan::new(2).expect("a plan"));
        assert!(
            text.contains("10.213.2.1 h1\n") && text.contains("10.213.2.99 h99\n") && text.contains("10.213.2.254 broker db\n")
        );
    }
}
