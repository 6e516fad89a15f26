//! `drover-bench`: the command line of the test bench; see [`drover_testkit`].

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use drover_testkit::guest::{CPU, MACHINE, export_boot_image};
use drover_testkit::supervisor::{daemon, launch};
use drover_testkit::workload::report::INTERVAL_MS;
use drover_testkit::{Bench, BenchError, Disk, GuestSpec, HostKind, Result, UpOptions, demo, status};

/// Drover's test bench: libvirt hosts, guests, RabbitMQ, PostgreSQL and Drover itself on one machine.
///
/// The environment variable `DROVER_BENCH` (0 to 9) picks one of ten benches that do not touch each other.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start what is missing and wait until all is healthy.
    Up {
        /// At least so many hosts (3 on a new bench).
        #[arg(long)]
        hosts: Option<u8>,
        /// At least so many hosts with an older libvirt and QEMU, in addition.
        #[arg(long, default_value_t = 0)]
        older: u8,
        /// Start only a part of it.
        #[arg(long)]
        only: Option<Only>,
    },
    /// A tour: bring everything up, move a guest there and back through the REST API, leave it running.
    Demo,
    /// End and remove everything (downloads stay cached).
    Down,
    /// Show processes, hosts and guests.
    Status,
    /// Make and start a guest, wait until its workload runs, print its UUID.
    Guest(GuestArguments),
    /// Watch the guests' datagrams and show, per guest, silences and errors.
    Watch {
        /// For how long.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Write what guests boot, `kernel` and `initramfs`, into a directory, for guests that are none of the bench's.
    BootImage {
        /// The directory.
        directory: PathBuf,
    },
    /// End a guest wherever it runs and remove its disk.
    GuestRm {
        /// Name of the guest.
        name: String,
    },
    /// Start a process and wait until it is ready.
    Start {
        /// Name, e.g. `compute-h1`; see `status`. `conductor-2` adds a conductor.
        process: String,
        /// Environment variables for this and all later starts, e.g. `DROVER_LIBVIRT__LIVE_MIGRATION_BANDWIDTH=8` (empty value:
        /// none).
        #[arg(long = "env", value_name = "KEY=VALUE")]
        environment: Vec<String>,
    },
    /// Stop a process and wait until it has ended.
    Stop {
        /// Name, e.g. `compute-h1`; see `status`.
        process: String,
        /// Use SIGKILL.
        #[arg(long)]
        kill: bool,
    },
    /// Run a command inside a host's namespaces.
    Exec {
        /// Name of the host.
        host: String,
        /// Program and arguments.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Add a host of a kind and print its name.
    AddHost {
        /// Its kind.
        #[arg(long, default_value = "normal")]
        kind: HostKind,
    },
    /// Remove a host with everything on it.
    RemoveHost {
        /// Name of the host.
        name: String,
    },
    /// Switch a host off as a power cut would; `up` switches it on again.
    PowerOff {
        /// Name of the host.
        name: String,
    },
    #[command(name = launch::SUBCOMMAND, hide = true)]
    Supervise {
        spec: PathBuf,
        #[arg(long)]
        inside: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Everything but Drover's own processes.
    Infrastructure,
}

#[derive(Debug, Args)]
struct GuestArguments {
    /// Name of the guest.
    name: String,
    /// Host to start it on.
    #[arg(long)]
    host: String,
    /// Memory in MiB.
    #[arg(long, default_value_t = 128)]
    memory: u32,
    /// Virtual processors.
    #[arg(long, default_value_t = 1)]
    vcpus: u32,
    /// Memory that its workload writes, MiB per second.
    #[arg(long, default_value_t = 0.0)]
    dirty: f64,
    /// Memory that its workload writes to in turn, MiB (a quarter of the memory if not given).
    #[arg(long)]
    working_set: Option<u32>,
    /// Time between two of its datagrams, milliseconds.
    #[arg(long, default_value_t = INTERVAL_MS)]
    interval: u32,
    /// Where its disk lies.
    #[arg(long, default_value = "none")]
    disk: Disk,
    /// CPU model.
    #[arg(long, default_value = CPU)]
    cpu: String,
    /// Machine type.
    #[arg(long, default_value = MACHINE)]
    machine: String,
    /// Do not define it: it is gone when it ends.
    #[arg(long)]
    transient: bool,
    /// Start it with its processors stopped.
    #[arg(long)]
    paused: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    if let Command::Supervise { spec, inside } = command {
        return if inside { daemon::inside(&spec) } else { launch::outside(&spec) };
    }
    if let Command::BootImage { directory } = command {
        return export_boot_image(&directory);
    }
    let bench = Bench::from_env()?;
    match command {
        Command::Up { hosts, older, only } => {
            bench.up(&UpOptions { hosts, older, infrastructure_only: only == Some(Only::Infrastructure) })?;
        }
        Command::Demo => demo::run(&bench)?,
        Command::Down => {
            bench.down()?;
            println!("==> Bench {} is down", bench.plan().name());
        }
        Command::Status => print!("{}", status::text(&bench)?),
        Command::Guest(arguments) => println!("{}", bench.create_guest(&spec(arguments))?.uuid()),
        Command::Watch { seconds } => watch(&bench, Duration::from_secs(seconds))?,
        Command::GuestRm { name } => bench.remove_guest(&name)?,
        Command::Start { process, environment } => {
            for setting in environment {
                let (key, value) = setting
                    .split_once('=')
                    .ok_or_else(|| BenchError::Refused(format!("--env {setting:?}: KEY=VALUE is wanted")))?;
                bench.set_environment(&process, key, Some(value).filter(|value| !value.is_empty()))?;
            }
            bench.process(&process)?.start()?;
        }
        Command::Stop { process, kill: false } => bench.process(&process)?.stop()?,
        Command::Stop { process, kill: true } => bench.process(&process)?.kill()?,
        Command::Exec { host, command } => return exec(&bench, &host, &command),
        Command::AddHost { kind } => println!("{}", bench.quiet().add_host(kind)?.name()),
        Command::RemoveHost { name } => bench.remove_host(&name)?,
        Command::PowerOff { name } => bench.host(&name)?.power_off()?,
        Command::BootImage { .. } | Command::Supervise { .. } => {}
    }
    Ok(())
}

fn spec(arguments: GuestArguments) -> GuestSpec {
    GuestSpec {
        name: arguments.name,
        host: arguments.host,
        memory_mib: arguments.memory,
        vcpus: arguments.vcpus,
        dirty_mib_s: arguments.dirty,
        working_set_mib: arguments.working_set,
        interval_ms: arguments.interval,
        disk: arguments.disk,
        cpu: arguments.cpu,
        machine: arguments.machine,
        transient: arguments.transient,
        paused: arguments.paused,
        console: false,
    }
}

/// Listens for a while, then prints what was seen of each guest.
fn watch(bench: &Bench, length: Duration) -> Result<()> {
    let watch = bench.watch()?;
    let start = watch.mark();
    std::thread::sleep(length);
    println!(
        "{:<16} {:>9} {:>11} {:>5} {:>9} {:>9} {:>8} {:>8}",
        "guest", "datagrams", "longest gap", "lost", "restarts", "overlaps", "mem err", "disk err"
    );
    for guest in bench.guests()? {
        let (Some(seen), Some(gap)) = (watch.observed(guest.address()), watch.longest_gap_since(guest.address(), start)) else {
            println!("{:<16} silent", guest.name());
            continue;
        };
        println!(
            "{:<16} {:>9} {:>8} ms {:>5} {:>9} {:>9} {:>8} {:>8}",
            guest.name(),
            seen.received,
            gap.length.as_millis(),
            gap.lost,
            seen.restarts(),
            seen.overlaps,
            seen.last.memory_errors,
            seen.last.disk_errors
        );
    }
    Ok(())
}

/// Becomes the command; returns only if that fails.
fn exec(bench: &Bench, host: &str, command: &[String]) -> Result<()> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(());
    };
    let error = bench.host(host)?.command(program, arguments)?.exec();
    Err(BenchError::io(format!("run nsenter for {program} on {host}"))(error))
}
