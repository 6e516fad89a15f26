//! Traces: one for each request, through the broker, the conductor and the agents to libvirt's call and back.
//!
//! Every service has spans in any case, so that log lines carry the trace's id and messages its context. They are sent, OTLP over
//! HTTP, only with `[tracing] otlp_endpoint`; a thread of the SDK's does that, and drops what a collector does not take in time.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingResult, SdkTracerProvider, ShouldSample};
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, filter};

use crate::config::TracingSection;

/// The header of W3C's trace context.
const TRACEPARENT: &str = "traceparent";
/// How long the collector has to take a batch.
const COLLECTOR_PATIENCE: Duration = Duration::from_secs(5);
/// How long what is not sent yet may keep the process from its end.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);
/// Spans around messages that may come by themselves (heartbeats, reports): alone they are no trace.
const NO_TRACE_BY_THEMSELVES: [&str; 2] = ["conductor.message", "message"];

/// The span that is entered now, as W3C trace context; none outside of every span.
pub fn traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Makes `span`, which nobody entered yet, a part of the trace that `traceparent` belongs to (a new one if that is none), and writes
/// the trace's id into its field `trace.id`.
pub fn join(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(remote) {
        span.set_parent(parent).ok(); // Not with a subscriber that knows no traces.
    }
    let id = span.context().span().span_context().trace_id();
    if id != TraceId::INVALID {
        span.record("trace.id", tracing::field::display(id));
    }
}

/// Somebody else's span; none if it is not in W3C's form.
fn remote(traceparent: &str) -> Option<Context> {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    context.has_active_span().then_some(context)
}

/// What makes spans, and sends them if an endpoint is configured. Alive as long as the process; dropped, it sends what is left.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// For a service of this name.
    pub fn start(config: &TracingSection, service: &'static str) -> Result<Self, ExporterBuildError> {
        let resource = Resource::builder_empty()
            .with_attributes([KeyValue::new("service.name", service), KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))])
            .build();
        let provider = SdkTracerProvider::builder().with_resource(resource);
        let provider = match &config.otlp_endpoint {
            None => provider.with_sampler(sampler(0.0)),
            Some(endpoint) => {
                let exporter =
                    SpanExporter::builder().with_http().with_http_client(Collector::new()).with_endpoint(endpoint).build()?;
                provider.with_sampler(sampler(config.sampling_ratio)).with_batch_exporter(exporter)
            }
        };
        Ok(Self(provider.build()))
    }

    /// The part of a subscriber that follows our own spans.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("drover"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(ours())
    }

    /// Sends what is not sent yet.
    pub fn flush(&self) {
        self.0.force_flush().ok();
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        self.0.shutdown_with_timeout(FLUSH_PATIENCE).ok(); // A collector that is away must not keep anybody waiting.
    }
}

/// Our own, down to info, whatever is logged.
fn ours() -> filter::FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(|metadata| metadata.target().starts_with("drover") && *metadata.level() <= LevelFilter::INFO)
        .with_max_level_hint(LevelFilter::INFO)
}

fn sampler(ratio: f64) -> Sampler {
    Sampler::ParentBased(Box::new(Roots(Sampler::TraceIdRatioBased(ratio))))
}

/// Which traces that begin here are sent.
#[derive(Debug, Clone)]
struct Roots(Sampler);

impl ShouldSample for Roots {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = if NO_TRACE_BY_THEMSELVES.contains(&name) { &Sampler::AlwaysOff } else { &self.0 };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

/// The way to the collector. It blocks; the thread that sends has nothing else to do.
#[derive(Debug)]
struct Collector(ureq::Agent);

impl Collector {
    fn new() -> Self {
        Self(ureq::Agent::config_builder().timeout_global(Some(COLLECTOR_PATIENCE)).http_status_as_error(false).build().into())
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, mut body) = self.0.run(request.map(|bytes| bytes.to_vec()))?.into_parts();
        Ok(Response::from_parts(parts, Bytes::from(body.read_to_vec()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use tracing::{field, info, info_span};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn parent() -> String {
        format!("00-{TRACE}-b7ad6b7169203331-01")
    }

    fn config(otlp_endpoint: Option<String>) -> TracingSection {
        TracingSection { otlp_endpoint, sampling_ratio: 1.0 }
    }

    /// Takes one POST in and answers it; its path, content type and body.
    fn collect(listener: &TcpListener) -> (String, String, Vec<u8>) {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_ascii_lowercase());
        }
        let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        let mut body = vec![0; header("content-length:").parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        (head[0].clone(), header("content-type:"), body)
    }

    #[test]
    fn spans_reach_the_collector_under_the_callers_trace() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let collector = std::thread::spawn(move || collect(&listener));
        let traces = Traces::start(&config(Some(endpoint)), "drover-test").unwrap();
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || {
            let span = info_span!("api.request", trace.id = field::Empty);
            join(&span, Some(&parent()));
            span.in_scope(|| {
                info!("something happened");
                assert!(traceparent().unwrap().starts_with(&format!("00-{TRACE}-")), "{:?}", traceparent());
                assert_ne!(traceparent().unwrap(), parent(), "a span of its own");
            });
        });
        drop(traces);
        let (request, content_type, body) = collector.join().unwrap();
        assert_eq!((request.as_str(), content_type.as_str()), ("post /v1/traces http/1.1", "application/x-protobuf"));
        let has = |bytes: &[u8]| body.windows(bytes.len()).any(|window| window == bytes);
        let trace: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&TRACE[2 * at..2 * at + 2], 16).unwrap()).collect();
        for (what, bytes) in [("trace", &trace[..]), ("span", b"api.request"), ("service", b"drover-test"), ("event", b"something")]
        {
            assert!(has(bytes), "no {what}");
        }
    }

    #[test]
    fn without_a_collector_messages_carry_a_trace_all_the_same() {
        let traces = Traces::start(&config(None), "drover-test").unwrap();
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(traceparent(), None, "outside of every span");
            let span = info_span!("api.request", trace.id = field::Empty);
            join(&span, Some("00-xyz")); // Not in W3C's form: a new trace.
            let first = span.in_scope(traceparent).unwrap();
            assert_eq!(first.len(), 55);
            let inner = span.in_scope(|| info_span!("conductor.drive").in_scope(traceparent)).unwrap();
            assert_eq!(inner[..36], first[..36], "one trace");
            assert!(first.ends_with("-00"), "sent by nobody: {first}");
        });
    }
}
