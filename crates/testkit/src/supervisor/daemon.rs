//! The inner half of `drover-bench supervise`: first process of its PID namespace, serves the socket, reaps eagerly.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::launch::{furnish, load_spec};
use super::protocol::{ProcessReport, Reply, Request, StartSpec};
use crate::error::{BenchError, Result};
use crate::supervisor::daemon_spawn::{notify_socket, spawn};

/// Pause of the reaper when there is no child at all. Orphans of entered processes (`drover-bench exec`) may appear without
/// our doing, so it looks again even if nobody wakes it.
const IDLE: Duration = Duration::from_millis(100);

/// The processes, and a bell that rings on every change.
#[derive(Debug, Default)]
pub(super) struct Table {
    processes: Mutex<BTreeMap<String, ProcessReport>>,
    changed: Condvar,
}

type Processes<'a> = MutexGuard<'a, BTreeMap<String, ProcessReport>>;

impl Table {
    fn lock(&self) -> Processes<'_> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, at most until the deadline; false when it has passed.
    fn wait<'a>(&self, held: Processes<'a>, deadline: Instant) -> (Processes<'a>, bool) {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return (held, false);
        };
        let (held, _) = self.changed.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner);
        (held, true)
    }

    pub(super) fn mark_ready(&self, name: &str, pid: i32) {
        if let Some(process) = self.lock().get_mut(name).filter(|process| process.pid == pid) {
            process.ready = true;
        }
        self.changed.notify_all();
    }

    pub(super) fn is_running(&self, name: &str, pid: i32) -> bool {
        self.lock().get(name).is_some_and(|process| process.pid == pid && process.ended.is_none())
    }
}

/// Runs until it is killed.
pub fn inside(spec_path: &Path) -> Result<()> {
    let mut word = String::new();
    std::io::stdin().read_line(&mut word).map_err(BenchError::io("read the launcher's word"))?;
    if word.trim() != "go" {
        return Ok(()); // The launcher died before it had recorded us.
    }
    let spec = load_spec(spec_path)?;
    furnish(&spec)?;
    match fs::remove_file(&spec.socket) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(BenchError::file("remove", &spec.socket)(error)),
    }
    let table = Arc::new(Table::default());
    let reaper = Arc::clone(&table);
    thread::spawn(move || reap_for_ever(&reaper));
    let listener = UnixListener::bind(&spec.socket).map_err(BenchError::file("listen on", &spec.socket))?;
    for stream in listener.incoming() {
        let table = Arc::clone(&table);
        match stream {
            Ok(stream) => drop(thread::spawn(move || serve(&table, &stream))),
            Err(error) => eprintln!("supervisor: cannot accept a connection: {error}"),
        }
    }
    Ok(())
}

/// Reaps every child, ours or orphaned. It looks first and reaps under the lock, so that a process cannot end between its start
/// and its entry in the table, and so that a failed `spawn` finds the child that it wants to reap itself.
fn reap_for_ever(table: &Table) {
    loop {
        let Ok(status) = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) else {
            let held = table.lock();
            drop(table.wait(held, Instant::now() + IDLE));
            continue;
        };
        let Some(pid) = status.pid() else { continue };
        let mut processes = table.lock();
        if let Ok(status) = waitpid(pid, Some(WaitPidFlag::WNOHANG))
            && let Some(process) = processes.values_mut().find(|process| process.pid == pid.as_raw() && process.ended.is_none())
        {
            process.ended = Some(in_words(status));
        }
        drop(processes);
        table.changed.notify_all();
    }
}

fn in_words(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exited with status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("was ended by {signal}"),
        other => format!("ended: {other:?}"),
    }
}

fn serve(table: &Arc<Table>, mut stream: &UnixStream) {
    let mut line = String::new();
    let reply = match BufReader::new(stream).read_line(&mut line) {
        Ok(_) => match serde_json::from_str(&line) {
            Ok(request) => answer(table, request),
            Err(error) => Reply::Failed(format!(
                "this supervisor does not understand the request ({error}); it may be older than drover-bench: run down, then up"
            )),
        },
        Err(error) => Reply::Failed(format!("cannot read the request: {error}")),
    };
    let text = serde_json::to_string(&reply).unwrap_or_default() + "\n";
    if let Err(error) = stream.write_all(text.as_bytes()) {
        eprintln!("supervisor: cannot answer: {error}");
    }
}

fn answer(table: &Arc<Table>, request: Request) -> Reply {
    match request {
        Request::List => Reply::Processes(table.lock().values().cloned().collect()),
        Request::Start(spec) => start(table, &spec),
        Request::Stop { name, signal, within_ms } => stop(table, &name, signal, Duration::from_millis(within_ms)),
    }
}

fn start(table: &Arc<Table>, spec: &StartSpec) -> Reply {
    let mut processes = table.lock();
    if processes.get(&spec.name).is_none_or(|process| process.ended.is_some()) {
        let socket = match notify_socket(spec) {
            Ok(socket) => socket,
            Err(error) => return Reply::Failed(error.chain()),
        };
        let pid = match spawn(spec) {
            Ok(pid) => pid,
            Err(error) => return Reply::Failed(error.chain()),
        };
        let report = ProcessReport {
            name: spec.name.clone(),
            pid,
            log: spec.log.clone(),
            stop_signal: spec.stop_signal,
            ready: false,
            ended: None,
        };
        processes.insert(spec.name.clone(), report);
        table.changed.notify_all();
        let (table, name) = (Arc::clone(table), spec.name.clone());
        thread::spawn(move || super::daemon_spawn::hear(&table, &name, pid, &socket));
    }
    let deadline = Instant::now() + Duration::from_millis(spec.ready_within_ms);
    loop {
        match processes.get(&spec.name) {
            Some(process) if process.ready && process.ended.is_none() => return Reply::Started,
            Some(ProcessReport { ended: Some(how), .. }) => return Reply::Failed(format!("it {how} before it was ready")),
            _ => {}
        }
        let (held, in_time) = table.wait(processes, deadline);
        if !in_time {
            return Reply::Failed(format!("it was not ready within {} s", spec.ready_within_ms / 1000));
        }
        processes = held;
    }
}

fn stop(table: &Table, name: &str, signal: i32, within: Duration) -> Reply {
    let mut processes = table.lock();
    let Some(pid) = processes.get(name).filter(|process| process.ended.is_none()).map(|process| process.pid) else {
        return Reply::Stopped;
    };
    let Ok(signal) = Signal::try_from(signal) else {
        return Reply::Failed(format!("there is no signal {signal}"));
    };
    // Safe from mistaken identity: the child is not reaped while we hold the lock, so its pid is still its own.
    if let Err(error) = kill(Pid::from_raw(pid), signal) {
        return Reply::Failed(format!("cannot send {signal} to {name}: {error}"));
    }
    let deadline = Instant::now() + within;
    while processes.get(name).is_some_and(|process| process.pid == pid && process.ended.is_none()) {
        let (held, in_time) = table.wait(processes, deadline);
        if !in_time {
            return Reply::Failed(format!("{name} did not end within {} s of {signal}", within.as_secs()));
        }
        processes = held;
    }
    Reply::Stopped
}
