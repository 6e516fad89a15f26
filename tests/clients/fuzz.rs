//! Requests that nobody would write, made from our own OpenAPI document by schemathesis.

use std::process::Command;

use crate::client::installed;
use crate::cloud::Cloud;

/// Test cases for one operation, at most, in one phase.
const EXAMPLES: &str = "15";
/// The same requests in every run.
const SEED: &str = "1";
/// A bound for all, seconds.
const PATIENCE: &str = "240";

#[test]
fn whatever_is_asked_the_answer_is_a_documented_one_and_never_a_5xx() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("target");
    let mut command = Command::new("timeout");
    command.arg(PATIENCE).arg(installed("schemathesis")).arg("run").arg(format!("{}/openapi.json", cloud.api.base()));
    command.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED, "--no-shrink"]);
    command.args(["--warnings", "off", "--workers", "2", "--continue-on-failure"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", env!("CARGO_TARGET_TMPDIR")).env("NO_COLOR", "1");
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    let output = command.output().expect("timeout (coreutils) runs");
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    vm.assert_unharmed();
}
