//! Services of a test's own beside those of the bench: one more API with other options, a Keystone. They end with the test.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use drover_testkit::wait_for;

use crate::cloud::{Cloud, SOON};
use crate::rest;

/// A process that listens on a port.
pub(crate) struct Service {
    child: Child,
    url: String,
}

impl Service {
    /// Starts the program with its log in `tests`' directory, and waits until this path of it answers 200.
    pub(crate) fn start(name: &str, program: &Path, port: u16, ready: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let log = scratch(&format!("{name}.log"));
        let file = File::create(&log).expect("a log");
        // Whatever happens to this program, none of its services outlives it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a log")).stderr(file);
        prepare(&mut command);
        let service = Self { child: command.spawn().expect("setpriv (util-linux) runs"), url: format!("http://127.0.0.1:{port}") };
        wait_for(name, SOON, || rest::get(&format!("{}{ready}", service.url), &[]).status == 200)
            .unwrap_or_else(|e| panic!("{e}; see {}", log.display()));
        service
    }

    /// One more API of the cloud's, with these options (`SECTION__OPTION`).
    pub(crate) fn api(cloud: &Cloud, port: u16, options: &[(&str, &str)]) -> Self {
        let cluster = cloud.bench.cluster().expect("the bench is up");
        let program = std::env::current_exe().expect("this program");
        let program = program.ancestors().nth(2).expect("target/debug/deps/PROGRAM").join("drover-api");
        Self::start("own-api", &program, port, "/healthz", |command| {
            command.env("DROVER_DATABASE__CONNECTION", &cluster.database_url);
            command.env("DROVER_DEFAULT__TRANSPORT_URL", &cluster.amqp_url);
            command.env("DROVER_API__OSAPI_COMPUTE_LISTEN_PORT", port.to_string());
            command.envs(options.iter().map(|(option, value)| (format!("DROVER_{option}"), value)));
        })
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Its URL, without a path.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A path in the directory that Cargo gives to tests.
pub(crate) fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}
