//! What the cluster says of itself: health checks, and metrics in Prometheus (profile `observability`).

use std::process::Command;

use drover_testkit::{Look, wait_for, wait_until};
use serde_json::Value;

use crate::cluster::{Cluster, HOSTS, SOON, output};

/// What Prometheus answers; null if there is no answer yet.
fn prometheus(path: &str) -> Value {
    let port = std::env::var("PROMETHEUS_PORT").expect("deploy/compose/test chooses a port");
    let output = output(Command::new("curl").args(["--silent", &format!("http://127.0.0.1:{port}/api/v1/{path}")]));
    serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()["data"].take()
}

#[test]
fn prometheus_hears_every_service_and_has_the_alerts() {
    let _cluster = Cluster::new();
    wait_until("Prometheus hears all", SOON, || {
        let targets = prometheus("targets?state=active")["activeTargets"].take();
        let all = targets.as_array().map(Vec::as_slice).unwrap_or_default();
        let up = all.iter().filter(|target| target["health"] == "up").count();
        Ok(if up == 2 + HOSTS.len() && up == all.len() { Look::Done(()) } else { Look::NotYet(targets.to_string()) })
    })
    .unwrap_or_else(|e| panic!("{e}"));
    let known = || prometheus("query?query=max(drover_hosts%7Bstate=%22up%22%7D)")["result"][0]["value"][1].take();
    wait_for("the fleet's metrics", SOON, || known() == "3").unwrap_or_else(|e| panic!("{e}"));
    let rules = prometheus("rules");
    assert!(rules["groups"].as_array().is_some_and(|groups| !groups.is_empty()), "{rules}");
}

#[test]
fn a_conductor_without_broker_or_database_is_unhealthy() {
    let cluster = Cluster::new();
    let wait_for_health = |wanted: &str| {
        let health = || cluster.inspect("conductor", "{{.State.Health.Status}}");
        wait_for(&format!("a conductor that is {wanted}"), SOON, || health() == wanted).unwrap_or_else(|e| panic!("{e}"));
    };
    wait_for_health("healthy");
    for needed in ["database", "broker"] {
        cluster.compose(&[], ["stop", "-t", "10", needed]);
        wait_for_health("unhealthy");
        cluster.compose(&[], ["start", needed]);
        wait_for_health("healthy");
    }
}
