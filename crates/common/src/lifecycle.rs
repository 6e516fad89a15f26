//! The life of a process: start, ready, told to stop, waiting for what is under way, ended.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Command, CommandFactory, FromArgMatches, Parser};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::config::{self, Config};
use crate::{metrics, telemetry};

/// How long a process that was told to stop may finish what it is in the middle of. systemd's default patience is 90 s.
const GRACE: Duration = Duration::from_secs(20);

/// The command line that all services share.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// Configuration file (TOML); without it /etc/drover/drover.toml, if it is there.
    #[arg(long, value_name = "PATH", env = "DROVER_CONFIG_FILE")]
    pub config_file: Option<PathBuf>,
}

/// The services: name, and what each is.
pub const SERVICES: [(&str, &str); 3] = [
    ("drover-api", "Nova's REST API for live migration"),
    ("drover-conductor", "Leads live migrations"),
    ("drover-compute", "The agent of one compute host: the only process that talks to its libvirt"),
];

impl Arguments {
    /// The command line of each service.
    pub fn commands() -> [Command; 3] {
        SERVICES.map(|(name, about)| Self::command().name(name).about(about))
    }

    /// The command line of this process, which is the service `name`. Ends the process if it makes no sense.
    fn of(name: &'static str) -> Self {
        let about = SERVICES.iter().find(|(service, _)| *service == name).map_or("", |(_, about)| about);
        let matches = Self::command().name(name).about(about).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// What a service gets for its life.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// Cancelled when the process is told to stop: take on nothing new.
    pub stop: CancellationToken,
    /// Everything that must come to an end before the process does.
    pub tasks: TaskTracker,
}

impl Life {
    /// Runs `task` for as long as the process lives; the end waits for it.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Tells systemd (or whoever started us) that the service works now.
    pub fn ready(&self) {
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            warn!(error = %error, "cannot tell the service manager that we are ready");
        }
        info!("ready");
    }
}

/// The whole `main` of a service: arguments, configuration, logs, signals, `run`, orderly end.
pub fn main<F, R, E>(name: &'static str, run: R) -> ExitCode
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    R: FnOnce(Config, Life) -> F + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let arguments = Arguments::of(name);
    let configured = config::load(arguments.config_file.as_deref());
    let (config, traces) = match configured.and_then(|config| Ok((telemetry::init(&config, name)?, config))) {
        Ok((traces, config)) => (config, traces),
        Err(error) => {
            eprintln!("{name}: {}", telemetry::chain(&error));
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name(name).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(error = %error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    info!(version = env!("CARGO_PKG_VERSION"), "{name} starts");
    // On a task, too: from this thread each message that `run` takes in would have to be handed to one that runs tasks.
    let code = runtime.block_on(runtime.spawn(live(name, run, config))).unwrap_or(ExitCode::FAILURE);
    // Dropping the runtime would wait for threads that block in a call (a hung libvirt, a hung file system) without end.
    runtime.shutdown_background();
    drop(traces);
    code
}

async fn live<F, R, E>(name: &'static str, run: R, config: Config) -> ExitCode
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    R: FnOnce(Config, Life) -> F + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let life = Life::default();
    tokio::spawn(stop_on_signal(life.stop.clone()));
    if let Err(error) = metrics::serve(&config.metrics, name, &life).await {
        error!(error = telemetry::chain(&error), "cannot start");
        return ExitCode::FAILURE;
    }
    let result = run(config, life.clone()).await;
    life.stop.cancel();
    life.tasks.close();
    if tokio::time::timeout(GRACE, life.tasks.wait()).await.is_err() {
        warn!(tasks = life.tasks.len(), "ended before everything was finished; what is on a row is taken up again");
    }
    match result {
        Ok(()) => {
            info!("ended");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(error = telemetry::chain(&error), "cannot go on");
            ExitCode::FAILURE
        }
    }
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        error!("cannot listen for signals");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
    }
    stop.cancel();
    sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
}
