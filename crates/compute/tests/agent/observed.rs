//! What Prometheus is told of this host, and the trace that its words belong to.

use drover_common::config::TracingSection;
use drover_common::doctor::own_clock;
use drover_common::ids::HostName;
use drover_common::metrics::{self, COMPUTE};
use drover_common::migration::JobResult;
use drover_common::rpc::Envelope;
use drover_common::rpc::latest::{Diagnose, HostDiagnosis, JobKind, Peer, ToCompute};
use drover_common::telemetry::{self, Traces};
use drover_compute::driver::DomainEvent;
use tracing::{Instrument, field, info_span};
use tracing_subscriber::layer::SubscriberExt;

use super::MIB;
use super::fake::Stage;

/// One migration that arrives.
async fn migrate(stage: &mut Stage) {
    stage.cast(stage.order()).await;
    stage.until(|state| !state.calls.is_empty()).await;
    stage.driver.set_job(Some(JobKind::MigrationOut), 128 * MIB);
    stage.driver.state().domain = None;
    let account = JobResult { downtime_ms: Some(30), total_ms: Some(900), ..JobResult::default() };
    stage.driver.tell(DomainEvent::JobCompleted(stage.of.server, Box::new(account)));
    stage.driver.return_from_call(Ok(()));
    stage.report().await;
}

#[tokio::test]
async fn an_agent_tells_all_that_it_declares() {
    let mut stage = Stage::new(|_, _, _| {});
    migrate(&mut stage).await;
    metrics::BUILD_INFO.set(["0"], 1.0); // As the start of the process does.
    let text = metrics::expose(COMPUTE);
    for declared in metrics::of(COMPUTE) {
        assert!(text.contains(&format!("\n{}", declared.metric().exposed())), "{}: {text}", declared.metric().name);
    }
    assert!(text.contains("drover_dependency_up{dependency=\"libvirt\"} 1.0"), "{text}");
    assert!(!text.contains("drover_compute_jobs_ended_total{result=\"succeeded\"} 0\n"), "{text}");
    assert!(!text.contains("drover_compute_blackout_seconds_count 0\n"), "{text}");
    assert!(!text.contains(&stage.of.server.to_string()), "{text}");
}

#[tokio::test]
async fn what_an_agent_says_of_a_migration_is_in_the_trace_of_its_order() {
    let traces = Traces::start(&TracingSection { otlp_endpoint: None, sampling_ratio: 1.0 }, "test").unwrap();
    // For the whole process: with one for this thread only, call sites that other tests reach first would stay silent.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(traces.layer())).expect("the only one");
    let mut stage = Stage::new(|_, _, _| {});
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let drive = info_span!(target: "drover_test", "conductor.drive", trace.id = field::Empty);
    telemetry::join(&drive, Some(&format!("00-{trace}-b7ad6b7169203331-01")));
    migrate(&mut stage).instrument(drive).await;
    let heard = stage.script.lock().unwrap().heard.clone();
    for kind in ["grant", "decided", "report"] {
        let traced = heard.iter().find(|(name, _)| *name == kind).and_then(|(_, traceparent)| traceparent.clone());
        assert!(traced.is_some_and(|text| text.starts_with(&format!("00-{trace}-"))), "{kind}: {heard:?}");
    }
    let alone = Envelope::new(()).traceparent;
    assert_eq!(alone, None, "outside of every span");
}

#[tokio::test]
async fn an_agent_says_how_it_stands_with_its_host() {
    let stage = Stage::new(|_, _, _| {});
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(); // Closed again.
    let peer = Peer { host: HostName::new("h2").unwrap(), address: "127.0.0.1".to_owned(), migration_port: Some(nobody) };
    let said: HostDiagnosis = stage.call(ToCompute::Diagnose(Diagnose { peers: vec![peer] })).await.unwrap();
    assert!(said.libvirt_up && said.tcp_syn_retries.is_some(), "{said:?}");
    assert_eq!(said.here.host.as_str(), "h1");
    let problem = said.reach[0].problem.as_deref().unwrap();
    assert!(problem.contains(&format!("migration port at 127.0.0.1 port {nobody}: Connection refused")), "{problem}");
    let age = own_clock() - said.clock;
    assert!(age.num_seconds().abs() < 30, "{age}");
}
