//! One trace from the request to the agents and back, in messages and in the log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use drover_common::config::TracingSection;
use drover_common::migration::MigrationStatus;
use drover_common::rpc::latest::GuestState;
use drover_common::telemetry::{self, Traces};
use sqlx::PgPool;
use tracing::{Instrument, field, info_span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;

use crate::world::World;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[sqlx::test(migrator = "drover_store::MIGRATOR")]
async fn one_trace_leads_from_the_request_to_both_hosts_and_back_and_log_lines_carry_it(pool: PgPool) {
    let (log, traces) =
        (Log::default(), Traces::start(&TracingSection { otlp_endpoint: None, sampling_ratio: 1.0 }, "test").unwrap());
    let lines = tracing_subscriber::fmt::layer().json().with_writer({
        let log = log.clone();
        move || log.clone()
    });
    let info = tracing_subscriber::filter::LevelFilter::INFO;
    // For the whole process: with one for this thread only, call sites that other tests reach first would stay silent.
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(info)).with(traces.layer());
    tracing::subscriber::set_global_default(subscriber).expect("the only one");
    let world = World::new(pool).await;
    world.h2.set_guest(Some(GuestState::Running), None);
    let request = info_span!(target: "drover_test", "api.request", trace.id = field::Empty);
    telemetry::join(&request, Some(&format!("00-{TRACE}-b7ad6b7169203331-01")));
    let id = world.live_migrate().instrument(request).await;
    let row = world.until(id, |row| row.status.is_final()).await;
    assert_eq!(row.status, MigrationStatus::Completed);
    let heard: Vec<_> = world.h1.traces().into_iter().chain(world.h2.traces()).collect();
    for kind in ["describe_guest", "check_can_live_migrate_destination", "live_migration", "post_live_migration_at_destination"] {
        let traced = heard.iter().find(|(name, _)| *name == kind).and_then(|(_, traceparent)| traceparent.clone());
        assert!(traced.is_some_and(|text| text.starts_with(&format!("00-{TRACE}-"))), "{kind}: {heard:?}");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for said in ["destination claimed", "the guest is on the destination", "migration closed"] {
        let in_trace = format!("\"trace.id\":\"{TRACE}\"");
        let line = log.lines().find(|line| line.contains(said) && line.contains(&in_trace));
        assert!(line.is_some_and(|line| line.contains("\"request.id\":\"req-")), "{said}: {log}");
    }
}
