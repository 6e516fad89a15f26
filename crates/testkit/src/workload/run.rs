//! The guest's threads. Each does one thing at its own pace, so that a disk that hangs does not stop the datagrams. They sleep
//! until common beats: waking an emulated processor costs its host more than what the threads do.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::disk::CheckedDisk;
use super::memory::{PAGE_BYTES, PAGES_PER_MIB, WorkingSet};
use super::report::{DIRTY_VARIABLE, INTERVAL_MS, INTERVAL_VARIABLE, Report, TARGET_VARIABLE, WORKING_SET_VARIABLE};

const TICK: Duration = Duration::from_millis(100);
const DIRTY_STEP: Duration = Duration::from_millis(50);
const DISK_STEP: Duration = Duration::from_millis(200);
/// Pages checked per step when nothing is to be dirtied: a round of 8 MiB takes 13 s and next to no CPU time.
const IDLE_CHECKS: u64 = 16;
/// Disks that are checked, those of them that there are.
const DISKS: [&str; 3] = ["vda", "vdb", "vdc"];
const SECTOR: u64 = 512;

/// What the threads have counted.
#[derive(Debug, Default)]
struct Counters {
    ticks: AtomicU64,
    memory_errors: AtomicU64,
    disk_errors: AtomicU64,
    bytes_dirtied: AtomicU64,
    disk_writes: AtomicU64,
}

/// Sleeps until the next multiple of `period` since `start`. What was missed (the guest was paused, or too slow) is not caught up.
fn wait_for_beat(start: Instant, period: Duration) {
    let beats = start.elapsed().as_nanos() / period.as_nanos().max(1) + 1;
    let next = start + period.saturating_mul(u32::try_from(beats).unwrap_or(u32::MAX));
    thread::sleep(next.saturating_duration_since(Instant::now()));
}

/// Runs for ever; returns only if the guest cannot even begin, with the reason.
pub fn run() -> String {
    let mut boot = [0; 8];
    if let Err(error) = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut boot)) {
        return format!("cannot read /dev/urandom: {error}");
    }
    let boot = u64::from_le_bytes(boot);
    let counters = Arc::new(Counters::default());
    let target: String = setting(TARGET_VARIABLE, String::new());
    let socket = match UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect(&target).map(|()| socket)) {
        Ok(socket) => socket,
        Err(error) => return format!("cannot send to {target:?}: {error}"),
    };
    let start = Instant::now();
    let (mine, theirs) = (Arc::clone(&counters), Arc::clone(&counters));
    thread::spawn(move || send_reports(boot, start, &socket, &mine));
    thread::spawn(move || exercise_memory(boot, start, &theirs));
    for disk in DISKS.into_iter().filter(|disk| Path::new("/dev").join(disk).exists()) {
        let theirs = Arc::clone(&counters);
        thread::spawn(move || exercise_disk(disk, boot, start, &theirs));
    }
    let mut console = std::io::stdout();
    // A console that cannot be written to must not stop the guest; the datagrams still tell how it is.
    _ = writeln!(console, "boot {boot:016x}");
    loop {
        let ticks = counters.ticks.fetch_add(1, Relaxed) + 1;
        // Short, because an emulated serial line costs the guest's host one system call per character.
        _ = writeln!(
            console,
            "tick {ticks} mem {} disk {}",
            counters.memory_errors.load(Relaxed),
            counters.disk_errors.load(Relaxed)
        );
        wait_for_beat(start, TICK);
    }
}

/// A setting from the kernel command line (the kernel hands what it does not know to the first process as environment).
fn setting<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn send_reports(boot: u64, start: Instant, socket: &UdpSocket, counters: &Counters) {
    let interval = Duration::from_millis(setting(INTERVAL_VARIABLE, u64::from(INTERVAL_MS)));
    for sequence in 1.. {
        let report = Report {
            boot,
            sequence,
            uptime_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            ticks: counters.ticks.load(Relaxed),
            memory_errors: counters.memory_errors.load(Relaxed),
            disk_errors: counters.disk_errors.load(Relaxed),
            bytes_dirtied: counters.bytes_dirtied.load(Relaxed),
            disk_writes: counters.disk_writes.load(Relaxed),
        };
        // Nobody may be listening (ECONNREFUSED comes back then); that is the receiver's business.
        _ = socket.send(&report.encode());
        wait_for_beat(start, interval);
    }
}

fn exercise_memory(boot: u64, start: Instant, counters: &Counters) {
    let rate_mib_s: f64 = setting(DIRTY_VARIABLE, 0.0);
    let pages = setting(WORKING_SET_VARIABLE, 8_usize) * usize::try_from(PAGES_PER_MIB).unwrap_or(1);
    let mut set = WorkingSet::new(boot, pages);
    let step = if rate_mib_s > 0.0 { DIRTY_STEP } else { TICK };
    let pages_per_step = rate_mib_s * 256.0 * step.as_secs_f64();
    let mut owed = 0.0;
    loop {
        wait_for_beat(start, step);
        let errors = if rate_mib_s > 0.0 {
            owed += pages_per_step;
            let mut now = 0;
            while owed >= 1.0 {
                owed -= 1.0;
                now += 1;
            }
            let errors = set.dirty(now);
            counters.bytes_dirtied.fetch_add(now * PAGE_BYTES, Relaxed);
            errors
        } else {
            set.check(IDLE_CHECKS)
        };
        counters.memory_errors.fetch_add(errors, Relaxed);
    }
}

fn exercise_disk(name: &str, boot: u64, start: Instant, counters: &Counters) {
    let sectors = fs::read_to_string(format!("/sys/class/block/{name}/size")).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let mut disk = match CheckedDisk::open(&Path::new("/dev").join(name), sectors.unwrap_or_default() * SECTOR, boot) {
        Ok(disk) => disk,
        Err(error) => {
            println!("cannot open {name}: {error}");
            counters.disk_errors.fetch_add(1, Relaxed);
            return;
        }
    };
    loop {
        wait_for_beat(start, DISK_STEP);
        let before = disk.written();
        match disk.step() {
            Ok(true) => {}
            Ok(false) => drop(counters.disk_errors.fetch_add(1, Relaxed)),
            Err(error) => {
                println!("{name}: {error}");
                counters.disk_errors.fetch_add(1, Relaxed);
            }
        }
        counters.disk_writes.fetch_add(disk.written() - before, Relaxed);
    }
}
