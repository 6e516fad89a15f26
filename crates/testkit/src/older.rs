//! The older host: libvirt and QEMU of an earlier Debian release, unpacked beside the installed ones and shown in their place
//! inside one host.
//!
//! apt itself works out what is needed: it gets a private configuration with the older suite as the only source and a copy of the
//! machine's package status from which libvirt and QEMU are left out, and is asked to download (not install) them. What it fetches
//! is the older release plus exactly those libraries that the machine lacks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{command, run};
use crate::error::{BenchError, Result};
use crate::lock::FileLock;
use crate::plan::Plan;
use crate::supervisor::spec::Mount;

const PACKAGES: [&str; 5] = ["libvirt-daemon", "libvirt-daemon-driver-qemu", "qemu-system-x86", "seabios", "ipxe-qemu"];
const STATUS: &str = "/var/lib/dpkg/status";
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
/// Debian's releases, oldest first.
const RELEASES: [&str; 5] = ["bullseye", "bookworm", "trixie", "forky", "duke"];
/// What the older packages replace: shown at the same path if both sides have it.
const REPLACED: [&str; 10] = [
    "/usr/sbin/libvirtd",
    "/usr/bin/qemu-system-x86_64",
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/usr/lib/ipxe",
    "/usr/share/libvirt",
    "/usr/lib/libvirt",
    "/usr/lib/x86_64-linux-gnu/libvirt",
    "/usr/lib/x86_64-linux-gnu/qemu",
    "/usr/lib/qemu",
];
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// The unpacked older packages.
#[derive(Debug, Clone)]
pub(crate) struct OlderTree {
    root: PathBuf,
}

/// The tree; downloads and unpacks it if it is not in the cache yet.
pub(crate) fn prepare() -> Result<OlderTree> {
    let suite = older_suite()?;
    let base = Plan::cache_dir().join("older");
    let root = base.join(&suite);
    if root.exists() {
        return Ok(OlderTree { root });
    }
    let _lock = FileLock::of_cache()?;
    if root.exists() {
        return Ok(OlderTree { root }); // Somebody else fetched it while we waited.
    }
    eprintln!("==> Downloading libvirt and QEMU of Debian {suite} for the older host (once)");
    let work = base.join("work");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(BenchError::file("remove", &work))?;
    }
    let draft = work.join("root");
    fs::create_dir_all(&draft).map_err(BenchError::file("create", &draft))?;
    for archive in download(&suite, &work)? {
        run(command("dpkg", ["--extract"]).arg(archive).arg(&draft))?;
    }
    fs::rename(&draft, &root).map_err(BenchError::file("create", &root))?;
    fs::remove_dir_all(&work).map_err(BenchError::file("remove", &work))?;
    Ok(OlderTree { root })
}

/// The mounts that show the older programs in place of the installed ones.
pub(crate) fn mounts(tree: &OlderTree) -> Result<Vec<Mount>> {
    let inside = |path: &str| tree.root.join(path.trim_start_matches('/'));
    for needed in &REPLACED[..2] {
        if !inside(needed).exists() || !Path::new(needed).exists() {
            return Err(BenchError::Refused(format!(
                "the older host needs {needed}, both installed and in {}",
                tree.root.display()
            )));
        }
    }
    let both = REPLACED.iter().filter(|path| inside(path).exists() && Path::new(path).exists());
    Ok(both.map(|path| Mount::bind(inside(path), path)).collect())
}

/// The environment of the older libvirtd. libvirt hands `LD_LIBRARY_PATH` on to QEMU.
pub(crate) fn environment(tree: &OlderTree) -> BTreeMap<String, String> {
    let paths: Vec<String> = LIBRARIES.iter().map(|path| tree.root.join(path).display().to_string()).collect();
    BTreeMap::from([("LD_LIBRARY_PATH".to_owned(), paths.join(":"))])
}

/// The machine's own release if its libvirt came from backports, else the one before.
fn older_suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").map_err(BenchError::io("read /etc/os-release"))?;
    let codename =
        text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default().trim_matches('"').to_owned();
    let version = run(&mut command("dpkg-query", ["--show", "--showformat=${Version}", "libvirt-daemon"]))?;
    older_than(&codename, &version).map(str::to_owned).ok_or_else(|| {
        BenchError::Refused(format!(
            "cannot tell what is older than Debian {codename:?}: the older host works on Debian only (known: {RELEASES:?})"
        ))
    })
}

fn older_than(codename: &str, libvirt_version: &str) -> Option<&'static str> {
    let index = RELEASES.iter().position(|release| *release == codename)?;
    let index = if libvirt_version.contains("~bpo") { index } else { index.checked_sub(1)? };
    RELEASES.get(index).copied()
}

/// The mirror that the machine uses.
fn mirror() -> String {
    let targets = run(&mut command("apt-get", ["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages"]));
    let is_main = |line: &&str| line.contains("/debian ") || line.contains("/debian/ ");
    let found = targets.ok().and_then(|text| text.lines().find(is_main).and_then(|line| line.split(' ').next()).map(str::to_owned));
    found.unwrap_or_else(|| DEFAULT_MIRROR.to_owned())
}

/// Downloads the packages and what they need on this machine.
fn download(suite: &str, work: &Path) -> Result<Vec<PathBuf>> {
    for directory in ["state/lists/partial", "cache/archives/partial"] {
        let path = work.join(directory);
        fs::create_dir_all(&path).map_err(BenchError::file("create", &path))?;
    }
    let put = |name: &str, text: &str| {
        let path = work.join(name);
        fs::write(&path, text).map_err(BenchError::file("write", &path))
    };
    put("sources.list", &format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {suite} main\n", mirror()))?;
    let status = fs::read_to_string(STATUS).map_err(BenchError::io(format!("read {STATUS}")))?;
    put("status", &without_virtualisation(&status))?;
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        for (option, value) in [
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::sourcelist", "sources.list"),
        ] {
            apt.arg("--option").arg(format!("{option}={}", work.join(value).display()));
        }
        for option in ["Dir::Etc::sourceparts=/dev/null", "Dir::Etc::preferences=/dev/null", "Dir::Etc::preferencesparts=/dev/null"]
        {
            apt.args(["--option", option]);
        }
        apt.args(["--option", "APT::Sandbox::User=root", "--option", "Debug::NoLocking=1", "--quiet", "--yes"]).args(arguments);
        run(&mut apt)
    };
    apt(&["update"])?;
    let mut install = vec!["install", "--download-only", "--no-install-recommends"];
    install.extend(PACKAGES);
    apt(&install)?;
    let archives = work.join("cache/archives");
    let entries = fs::read_dir(&archives).map_err(BenchError::file("read", &archives))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
}

/// The package status without libvirt, QEMU and their firmware.
fn without_virtualisation(status: &str) -> String {
    let concerned = |stanza: &&str| {
        stanza.lines().any(|line| {
            let value = line.strip_prefix("Package: ").or_else(|| line.strip_prefix("Source: "));
            value.is_some_and(|name| ["libvirt", "qemu", "seabios", "ipxe"].iter().any(|prefix| name.starts_with(prefix)))
        })
    };
    let kept: Vec<&str> = status.split("\n\n").filter(|stanza| !concerned(stanza)).collect();
    kept.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_is_the_own_release_for_backports_and_the_one_before_otherwise() {
        assert_eq!(older_than("bookworm", "11.3.0-2~bpo12+1"), Some("bookworm"));
        assert_eq!(older_than("bookworm", "9.0.0-4+deb12u2"), Some("bullseye"));
        assert_eq!(older_than("trixie", "11.3.0-3"), Some("bookworm"));
        assert_eq!(older_than("bullseye", "7.0.0-3"), None);
        assert_eq!(older_than("noble", "10.0.0"), None);
    }

    #[test]
    fn libvirt_and_qemu_are_left_out_of_the_status() {
        let status = "Package: libc6\nSource: glibc\n\n\
                      Package: libvirt0\nSource: libvirt\n\n\
                      Package: qemu-utils\nVersion: 1\n\n\
                      Package: zlib1g\n";
        assert_eq!(without_virtualisation(status), "Package: libc6\nSource: glibc\n\nPackage: zlib1g\n");
    }
}
