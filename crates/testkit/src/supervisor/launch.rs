//! Making the namespaces: the outer half of `drover-bench supervise`.
//!
//! The order matters. The new PID namespace holds for *children*, hence the second process. It waits for a word on its standard
//! input before it does anything, and gets it only after its identity is on disk: if we are killed in between, the pipe closes and
//! it goes away, so there is never a supervisor that nobody can find.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{sethostname, setsid};

use super::spec::{Mount, NamespaceSpec};
use crate::error::{BenchError, Result};
use crate::identity::Identity;
use crate::layout::set_mode;

/// Flag of the inner half.
pub const INSIDE: &str = "--inside";
/// Name of the hidden subcommand.
pub const SUBCOMMAND: &str = "supervise";

/// Reads a spec from its file.
pub fn load_spec(path: &Path) -> Result<NamespaceSpec> {
    let text = fs::read_to_string(path).map_err(BenchError::file("read", path))?;
    serde_json::from_str(&text).map_err(|error| BenchError::Refused(format!("{} is no supervisor spec: {error}", path.display())))
}

/// The outer half: makes the namespaces, starts the inner half, records it, lets it go.
pub fn outside(spec_path: &Path) -> Result<()> {
    let spec = load_spec(spec_path)?;
    setsid().map_err(BenchError::sys("start a session of its own"))?;
    if let Some(netns) = &spec.netns {
        let path = Path::new("/run/netns").join(netns);
        let file = File::open(&path).map_err(BenchError::file("open", &path))?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(BenchError::sys(format!("enter network namespace {netns}")))?;
    }
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWPID;
    unshare(flags).map_err(BenchError::sys("make mount, UTS, IPC and PID namespaces (root is needed)"))?;

    let log = OpenOptions::new().create(true).append(true).open(&spec.log).map_err(BenchError::file("open", &spec.log))?;
    let errors = log.try_clone().map_err(BenchError::file("open", &spec.log))?;
    let program = std::env::current_exe().map_err(BenchError::io("find this program"))?;
    let mut inner = Command::new(program)
        .arg0(format!("drover-bench:{}", spec.name))
        .args([SUBCOMMAND.as_ref(), spec_path.as_os_str(), INSIDE.as_ref()])
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(BenchError::io(format!("start the supervisor of {}", spec.name)))?;
    let gone = || BenchError::Refused(format!("the supervisor of {} died at once; see {}", spec.name, spec.log.display()));
    let identity = i32::try_from(inner.id()).ok().and_then(Identity::of).ok_or_else(gone)?;
    identity.save(&spec.pid_file)?;
    if let Some(mut pipe) = inner.stdin.take() {
        pipe.write_all(b"go\n").map_err(BenchError::io(format!("release the supervisor of {}", spec.name)))?;
    }
    Ok(())
}

/// The first thing inside: private mounts and the host's name.
pub fn furnish(spec: &NamespaceSpec) -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(BenchError::sys("make all mounts private"))?;
    special("proc", Path::new("/proc"))?;
    special("tmpfs", Path::new("/dev/shm"))?;
    set_mode(Path::new("/dev/shm"), 0o1777)?;
    if spec.netns.is_some() {
        // sysfs shows the network namespace it was mounted in; libvirt looks for br0 there.
        if let Err(error) = umount2("/sys", MntFlags::MNT_DETACH) {
            return Err(BenchError::sys("unmount the machine's /sys inside the host")(error));
        }
        special("sysfs", Path::new("/sys"))?;
    }
    for item in &spec.mounts {
        match item {
            Mount::Tmpfs(path) => special("tmpfs", path)?,
            Mount::Directory(path) => fs::create_dir_all(path).map_err(BenchError::file("create", path))?,
            Mount::Bind { source, target } => {
                mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                    .map_err(BenchError::sys(format!("show {} at {}", source.display(), target.display())))?;
            }
        }
    }
    if let Some(name) = &spec.hostname {
        sethostname(name).map_err(BenchError::sys(format!("set the host name {name}")))?;
    }
    Ok(())
}

fn special(kind: &str, target: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = (kind == "tmpfs").then_some("mode=755");
    mount(Some(kind), target, Some(kind), flags, options).map_err(BenchError::sys(format!("mount {kind} on {}", target.display())))
}
