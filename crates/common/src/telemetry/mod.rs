//! Logs: one line an event, on standard error, as text or JSON; and traces. Field names are listed in `docs/logging.md`.

use std::io::IsTerminal;

use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Config, ConfigError, LogFormat};

mod traces;

pub use traces::{Traces, join, traceparent};

/// Starts logs and traces as configured. Called once, at the start of a process; what it returns lives as long.
pub fn init(config: &Config, service: &'static str) -> Result<Traces, ConfigError> {
    let log = &config.log;
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|e| ConfigError::not_allowed("[log] level", &log.level, format_args!("a level or directives ({e})")))?;
    let traces = Traces::start(&config.tracing, service)
        .map_err(|e| ConfigError::not_allowed("[tracing] otlp_endpoint", &config.tracing.otlp_endpoint, e))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_span_events(FmtSpan::NONE)
        .with_target(true);
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(traces.layer()).init();
    Ok(traces)
}

/// An error with everything that caused it, for a log line: a `Display` never repeats its source.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}
