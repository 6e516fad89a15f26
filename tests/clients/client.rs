//! Runs a client as a person would, with nothing in its environment but who asks, and looks at what it prints.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// Seconds after which `timeout` ends a client: `--wait` has no limit of its own.
const PATIENCE: &str = "180";

/// Somebody with a shell.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    environment: Vec<(String, String)>,
}

impl Client {
    /// With these variables.
    pub(crate) fn new<'a>(environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        // Without the last one `openstack` takes Keystone for a v2 where there is none.
        let always = [("OS_IDENTITY_API_VERSION", "3")];
        Self { environment: environment.into_iter().chain(always).map(own).collect() }
    }

    /// Who needs no credentials.
    pub(crate) fn noauth(api: &str) -> Self {
        Self::new([("OS_AUTH_TYPE", "none"), ("OS_ENDPOINT", &format!("{api}/v2.1"))])
    }

    /// What `openstack` prints.
    pub(crate) fn openstack(&self, arguments: &[&str]) -> String {
        self.succeeds("openstack", arguments)
    }

    /// What `openstack -f json` prints.
    pub(crate) fn openstack_json(&self, arguments: &[&str]) -> Value {
        let printed = self.openstack(&[arguments, &["-f", "json"]].concat());
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {printed}"))
    }

    /// What `openstack` complains.
    pub(crate) fn openstack_refused(&self, arguments: &[&str]) -> String {
        let output = self.run("openstack", arguments);
        assert!(!output.status.success(), "{arguments:?} went well: {output:?}");
        text(&output.stderr)
    }

    /// What `nova` prints.
    pub(crate) fn nova(&self, arguments: &[&str]) -> String {
        self.succeeds("nova", arguments)
    }

    /// What a script of ours in Python prints, in JSON.
    pub(crate) fn python(&self, script: &str, arguments: &[&str]) -> Value {
        let printed = self.succeeds("python", &[&["-W", "ignore", "-c", script], arguments].concat());
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{e}: {printed}"))
    }

    fn succeeds(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE).arg(installed(program)).args(arguments);
        // A home of its own: nobody's clouds.yaml.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", venv()).envs(self.environment.iter().cloned());
        command.output().expect("timeout (coreutils) runs")
    }
}

/// A program of the venv.
pub(crate) fn installed(program: &str) -> PathBuf {
    let path = venv().join("bin").join(program);
    assert!(path.exists(), "{} is missing; `make test-clients` installs it", path.display());
    path
}

/// Where `deploy/dev/test` installs the clients: beside Cargo's own directories.
fn venv() -> PathBuf {
    let program = std::env::current_exe().expect("this program");
    program.ancestors().nth(3).expect("target/debug/deps/PROGRAM").join("clients-venv")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
