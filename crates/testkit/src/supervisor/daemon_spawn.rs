//! How a supervisor starts one process and hears that it is ready.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::daemon::Table;
use super::protocol::StartSpec;
use crate::error::{BenchError, Result};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MESSAGE_MAX: usize = 4096;

fn socket_path(spec: &StartSpec) -> PathBuf {
    spec.notify_directory.join(&spec.name)
}

/// The socket on which the process will say `READY=1`. Open to all users: PostgreSQL and RabbitMQ are not root.
pub(super) fn notify_socket(spec: &StartSpec) -> Result<UnixDatagram> {
    let path = socket_path(spec);
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(BenchError::file("remove", &path)(error)),
    }
    let socket = UnixDatagram::bind(&path).map_err(BenchError::file("listen on", &path))?;
    fs::set_permissions(&path, Permissions::from_mode(0o666)).map_err(BenchError::file("open up", &path))?;
    socket.set_read_timeout(Some(Duration::from_millis(500))).map_err(BenchError::file("set up", &path))?;
    Ok(socket)
}

/// Starts the process and returns its pid here. It is not waited for: the reaper does that.
pub(super) fn spawn(spec: &StartSpec) -> Result<i32> {
    let (program, arguments) =
        spec.argv.split_first().ok_or_else(|| BenchError::Refused(format!("{} has no program to run", spec.name)))?;
    let log = OpenOptions::new().create(true).append(true).open(&spec.log).map_err(BenchError::file("open", &spec.log))?;
    let errors = log.try_clone().map_err(BenchError::file("open", &spec.log))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .env("NOTIFY_SOCKET", socket_path(spec))
        .envs(&spec.env)
        .current_dir(&spec.directory)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    if let Some((user, group)) = spec.user {
        command.uid(user).gid(group);
    }
    let child = command.spawn().map_err(BenchError::io(format!("start {program} for {}", spec.name)))?;
    i32::try_from(child.id()).map_err(|_| BenchError::Refused("the system gave a pid that is none".to_owned()))
}

/// Listens to the process's notifications as long as it runs (it may also send STATUS or STOPPING, and must not get an error).
pub(super) fn hear(table: &Table, name: &str, pid: i32, socket: &UnixDatagram) {
    let mut message = [0; MESSAGE_MAX];
    while table.is_running(name, pid) {
        if let Ok(length) = socket.recv(&mut message)
            && message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
        {
            table.mark_ready(name, pid);
        }
    }
}
