//! What operators see and do besides migrating: a pause, the doctor's facts, one trace in everybody's log.

use drover_testkit::wait_for;
use serde_json::Value;

use crate::cloud::{Cloud, SOON};

/// Events in a process's log.
fn logged(cloud: &Cloud, process: &str) -> Vec<Value> {
    let log = cloud.bench.process(process).and_then(|process| process.log()).expect("a log");
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The trace that an event belongs to.
fn trace_of(event: &Value) -> Option<&str> {
    event["spans"].as_array()?.iter().find_map(|span| span["trace.id"].as_str())
}

#[test]
fn an_operator_holds_a_migration_back_lets_it_go_and_follows_it_by_its_trace() {
    let cloud = Cloud::new();
    let vm = cloud.boot_on_h1("observed");
    cloud.bench.drover(["pause", "--reason", "new switches"]).expect("drover pause");
    vm.start_migration(Some("h2"));
    wait_for("the migration to be held back", SOON, || vm.migration()["waiting_for"] == "paused by admin: new switches")
        .unwrap_or_else(|e| panic!("{e}: {:#}", vm.migration()));
    let facts = cloud.api.get("2.1", "/drover/v1/doctor").body["doctor"].take();
    assert_eq!(facts["pause"]["reason"], "new switches", "{facts:#}");
    cloud.bench.drover(["resume"]).expect("drover resume");
    for host in facts["hosts"].as_array().expect("hosts") {
        assert_eq!(host["diagnosis"]["libvirt_up"], true, "{host:#}");
        assert!(host["clock_ahead_ms"].as_i64().is_some_and(|ahead| ahead.abs() < 2000), "one machine: {host:#}");
        let reach = host["diagnosis"]["reach"].as_array().expect("tries");
        assert_eq!(reach.len(), 2, "{host:#}");
        assert!(reach.iter().all(|tried| tried["problem"].is_null()), "{host:#}");
    }
    let row = vm.ended("completed", SOON);
    vm.assert_on("h2", "ACTIVE");
    let request = row["request"]["request_id"].as_str().expect("a request id").to_owned();
    let api = logged(&cloud, "api");
    let accepted = api.iter().find(|event| event["spans"][0]["request.id"] == request.as_str()).expect("the request's line");
    let trace = trace_of(accepted).expect("a trace").to_owned();
    for (process, said) in [
        ("conductor-1", "destination claimed"),
        ("conductor-1", "migration closed"),
        ("compute-h1", "libvirt migrate call returned"),
    ] {
        let found = logged(&cloud, process).iter().any(|event| event["message"] == said && trace_of(event) == Some(&trace));
        assert!(found, "{process} has no {said:?} in trace {trace}");
    }
}
