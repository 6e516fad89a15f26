//! What statements do to the log lines of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drover_common::config::{DatabaseSection, Secret};
use drover_store::Store;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Counts the lines that reach it.
#[derive(Clone, Default)]
struct Lines(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Logs and traces filter each for themselves, as in a service; a statement that asks whether it is to be logged, and is not, would
/// leave both filters closed for the line that comes next.
#[tokio::test]
async fn who_asks_for_debug_lines_loses_none_to_a_statement() {
    let connection = Secret::new(std::env::var("DATABASE_URL").expect("the bench's database"));
    let store = Store::open(&DatabaseSection { connection, max_pool_size: 2 }).expect("a database");
    let (lines, traced) = (Lines::default(), Lines::default());
    let logged = Targets::new().with_default(LevelFilter::INFO).with_target("it", LevelFilter::DEBUG);
    let spans = Targets::new().with_target("it", LevelFilter::INFO);
    let _guard = tracing_subscriber::registry()
        .with(lines.clone().with_filter(logged))
        .with(traced.clone().with_filter(spans))
        .set_default();
    for _ in 0..3 {
        store.ping().await.expect("it answers");
        tracing::info!("after a statement");
    }
    assert_eq!(lines.0.load(Ordering::Relaxed), 3, "in the log");
    assert_eq!(traced.0.load(Ordering::Relaxed), 3, "in the trace");
}
