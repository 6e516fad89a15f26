//! libvirtd on a host: its configuration and how it is started.
//!
//! Each setting that is not libvirt's default has its reason beside it: this is a bench in namespaces of one machine, without
//! cgroups of its own, without an init system, and with hosts that only the machine itself can reach.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::run;
use crate::error::{BenchError, Result};
use crate::host::SHARED;
use crate::layout::Layout;
use crate::older;
use crate::pki;
use crate::plan::Plan;
use crate::state::{HostKind, HostRecord};
use crate::supervisor::protocol::StartSpec;

/// Port of libvirtd's TCP socket on every host.
pub(crate) const TCP_PORT: u16 = 16509;
/// From this release on libvirt must be told which directories are shared between hosts (it would take our bind mount for a local
/// one); before it, shared disks need `VIR_MIGRATE_UNSAFE`.
pub(crate) const KNOWS_SHARED_FILESYSTEMS: u32 = 11;

/// Name of the host's libvirtd in `cluster.json`.
pub(crate) fn process_name(host: &str) -> String {
    format!("libvirtd-{host}")
}

/// Major version of the libvirt installed on this machine.
pub fn installed_major_version() -> Result<u32> {
    let text = run(Command::new("/usr/sbin/libvirtd").arg("--version"))?;
    major_version(&text).ok_or_else(|| BenchError::Refused(format!("libvirtd --version says {text:?}, which is no version")))
}

/// The major version in `libvirtd (libvirt) 11.3.0`.
fn major_version(text: &str) -> Option<u32> {
    text.split_whitespace().last()?.split('.').next()?.parse().ok()
}

/// Writes `libvirtd.conf` and `qemu.conf` of a host.
pub(crate) fn write_configuration(plan: Plan, host: &HostRecord, directory: &Path) -> Result<()> {
    let knows_shared = host.kind == HostKind::Normal && installed_major_version()? >= KNOWS_SHARED_FILESYSTEMS;
    for (file, text) in [("libvirtd.conf", libvirtd_conf(plan, host)), ("qemu.conf", qemu_conf(knows_shared))] {
        let path = directory.join(file);
        fs::write(&path, text).map_err(BenchError::file("write", &path))?;
    }
    Ok(())
}

fn libvirtd_conf(plan: Plan, host: &HostRecord) -> String {
    format!(
        r#"# Reachable from the bench's network only.
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
tcp_port = "{TCP_PORT}"
auth_tcp = "none"
# No polkit in here.
auth_unix_rw = "none"
# All hosts have the machine's DMI data; this keeps their identities apart.
host_uuid = "{uuid}"
"#,
        address = plan.address(host.index),
        uuid = plan.host_uuid(host.index),
    )
}

fn qemu_conf(knows_shared: bool) -> String {
    let shared = if knows_shared {
        format!("# A bind mount on this machine, but the same directory on every host.\nshared_filesystems = [ \"{SHARED}\" ]\n")
    } else {
        String::new()
    };
    format!(
        r#"# Guests run as root: the bench's files belong to root, and the host's namespaces are the fence.
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
seccomp_sandbox = 0
# No mount namespace per guest, and no cgroups: neither adds anything here.
namespaces = [ ]
cgroup_controllers = [ ]
# No virtlogd: QEMU writes its own log and the serial console.
stdio_handler = "file"
# Of the bench's own CA, for migrations that ask for TLS.
migrate_tls_x509_cert_dir = "{directory}"
{shared}"#,
        directory = pki::DIRECTORY,
    )
}

/// How the host's libvirtd is started.
pub(crate) fn start_spec(plan: Plan, host: &HostRecord) -> Result<StartSpec> {
    let layout = Layout::new(plan);
    let argv = ["/usr/sbin/libvirtd", "--listen"].map(str::to_owned).to_vec();
    let mut spec = layout.start_spec(&process_name(&host.name()), argv);
    if host.kind == HostKind::Older {
        spec.env.extend(older::environment(&older::prepare()?));
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        assert_eq!(major_version("libvirtd (libvirt) 11.3.0\n"), Some(11));
        assert_eq!(major_version("/usr/sbin/libvirtd (libvirt) 9.0.0"), Some(9));
        assert_eq!(major_version(""), None);
    }

    #[test]
    fn hosts_listen_on_their_own_address_under_their_own_uuid() {
        let plan = Plan::new(1).expect("a plan");
        let text = libvirtd_conf(plan, &HostRecord { index: 2, kind: HostKind::Normal });
        assert!(text.contains("listen_addr = \"10.213.1.2\"") && text.contains(&plan.host_uuid(2)), "{text}");
    }

    #[test]
    fn an_older_libvirt_gets_no_setting_that_it_would_refuse() {
        assert!(!qemu_conf(false).contains("shared_filesystems"));
        assert!(qemu_conf(true).contains("shared_filesystems = [ \"/srv/shared\" ]"));
    }
}
