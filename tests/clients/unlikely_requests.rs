//! A fuzz run: requests that nobody would write, made from our own OpenAPI document by schemathesis. The last of these tests, by its name:
//! it leaves aggregates, server groups and key pairs behind.

use std::fs;
use std::process::Command;

use drover_testkit::wait_for;

use crate::client::installed;
use crate::cloud::{Cloud, SOON};

/// Test cases for one operation, at most, in one phase.
const EXAMPLES: &str = "15";
/// The same requests in every run.
const SEED: &str = "1";
/// A bound for all, seconds.
const PATIENCE: &str = "240";

/// A microversion that is served and a server that exists, so that requests come as far as they can. Nobody deletes the server.
fn configuration(server: &str) -> String {
    format!(
        r#"
[parameters]
"header.OpenStack-API-Version" = "compute latest"

[[operations]]
include-name = "DELETE /v2.1/servers/{{id}}"
enabled = false

[[operations]]
include-path-regex = "/servers/\\{{id\\}}"
parameters = {{ "path.id" = "{server}" }}
"#
    )
}

#[test]
fn whatever_is_asked_the_answer_is_a_documented_one_and_never_a_5xx() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("target");
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("schemathesis.toml"), configuration(vm.id())).expect("written");
    let mut command = Command::new("timeout");
    command.arg(PATIENCE).arg(installed("schemathesis")).arg("run").arg(format!("{}/openapi.json", cloud.api.base()));
    command.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED, "--no-shrink"]);
    command.args(["--warnings", "off", "--workers", "2", "--continue-on-failure"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory.path()).env("NO_COLOR", "1");
    command.current_dir(directory.path());
    let output = command.output().expect("timeout (coreutils) runs");
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // It was locked, rebooted, paused, had its state reset, …: a delete waits for the end of all that was accepted.
    let path = format!("/v2.1/servers/{}", vm.id());
    assert_eq!(cloud.api.delete("2.90", &path).status, 204);
    wait_for("the server to be gone", SOON * 4, || cloud.api.get("2.90", &path).status == 404).expect("not stuck");
}
