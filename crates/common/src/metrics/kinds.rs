//! Counters, gauges and histograms: a declaration and the values so far, for each combination of the labels.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::{counter, family, gauge, histogram};
use prometheus_client::registry;

/// What something is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    None,
    /// `_seconds`
    Seconds,
    /// `_bytes`
    Bytes,
    /// `_bytes_per_second`
    BytesPerSecond,
}

impl Unit {
    fn of_client(self) -> Option<registry::Unit> {
        match self {
            Self::None => None,
            Self::Seconds => Some(registry::Unit::Seconds),
            Self::Bytes => Some(registry::Unit::Bytes),
            Self::BytesPerSecond => Some(registry::Unit::Other("bytes_per_second".to_owned())),
        }
    }
}

/// How it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values in buckets.
    Histogram,
}

impl Kind {
    /// Its name in Prometheus.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A declaration.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Without unit and `_total`.
    pub name: &'static str,
    /// How it is counted.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The services that have it.
    pub services: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

impl Metric {
    /// The name with its unit.
    pub fn family(&self) -> String {
        match self.unit.of_client() {
            Some(unit) => format!("{}_{}", self.name, unit.as_str()),
            None => self.name.to_owned(),
        }
    }

    /// The name by which queries know it; a histogram's have `_bucket`, `_sum` and `_count` behind it.
    pub fn exposed(&self) -> String {
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{total}", self.family())
    }
}

/// Something declared, whatever its kind.
pub trait Declared: Sync {
    /// The declaration.
    fn metric(&self) -> &Metric;
    /// Shows the values to a registry.
    fn register(&self, registry: &mut registry::Registry);
}

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Family<const N: usize, M> = family::Family<Labels<N>, M, fn() -> M>;
type Number = gauge::Gauge<f64, AtomicU64>;

/// The values of one declaration.
struct Values<const N: usize, M> {
    metric: Metric,
    labels: [&'static str; N],
    make: fn() -> M,
    family: OnceLock<Family<N, M>>,
}

impl<const N: usize, M: Clone> Values<N, M> {
    const fn new(metric: Metric, labels: [&'static str; N], make: fn() -> M) -> Self {
        Self { metric, labels, make, family: OnceLock::new() }
    }

    fn family(&self) -> &Family<N, M> {
        self.family.get_or_init(|| {
            let family = Family::new_with_constructor(self.make);
            if N == 0 {
                family.get_or_create_owned(&self.labelled([""; N])); // Known from the start: 0 is not the same as nothing.
            }
            family
        })
    }

    fn labelled(&self, values: [&'static str; N]) -> Labels<N> {
        std::array::from_fn(|at| (self.labels[at], values[at]))
    }

    fn register(&self, registry: &mut registry::Registry)
    where
        Family<N, M>: registry::Metric,
    {
        let Metric { name, help, unit, .. } = self.metric;
        match unit.of_client() {
            Some(unit) => registry.register_with_unit(name, help, unit, self.family().clone()),
            None => registry.register(name, help, self.family().clone()),
        }
    }
}

/// Goes up.
pub struct Counter<const N: usize>(Values<N, counter::Counter>);

impl<const N: usize> Counter<N> {
    pub(super) const fn new(metric: Metric, labels: [&'static str; N]) -> Self {
        Self(Values::new(metric, labels, counter::Counter::default))
    }

    /// One more.
    pub fn increment(&self, values: [&'static str; N]) {
        self.add(values, 1);
    }

    /// So many more.
    pub fn add(&self, values: [&'static str; N], by: u64) {
        self.0.family().get_or_create(&self.0.labelled(values)).inc_by(by);
    }
}

/// Goes up and down.
pub struct Gauge<const N: usize>(Values<N, Number>);

impl<const N: usize> Gauge<N> {
    pub(super) const fn new(metric: Metric, labels: [&'static str; N]) -> Self {
        Self(Values::new(metric, labels, Number::default))
    }

    /// Is this now.
    pub fn set(&self, values: [&'static str; N], to: f64) {
        self.0.family().get_or_create(&self.0.labelled(values)).set(to);
    }

    /// Is so many now.
    #[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
    pub fn set_count(&self, values: [&'static str; N], to: i64) {
        self.set(values, to as f64);
    }

    /// More, or less.
    pub fn change(&self, values: [&'static str; N], by: f64) {
        self.0.family().get_or_create(&self.0.labelled(values)).inc_by(by);
    }

    /// Now.
    pub fn value(&self, values: [&'static str; N]) -> f64 {
        self.0.family().get(&self.0.labelled(values)).map_or(0.0, |gauge| gauge.get())
    }
}

/// Values in buckets.
pub struct Histogram<const N: usize>(Values<N, histogram::Histogram>);

impl<const N: usize> Histogram<N> {
    pub(super) const fn new(metric: Metric, labels: [&'static str; N], buckets: fn() -> histogram::Histogram) -> Self {
        Self(Values::new(metric, labels, buckets))
    }

    /// One more value.
    pub fn observe(&self, values: [&'static str; N], value: f64) {
        self.0.family().get_or_create(&self.0.labelled(values)).observe(value);
    }

    /// One more time.
    pub fn took(&self, values: [&'static str; N], time: Duration) {
        self.observe(values, time.as_secs_f64());
    }
}

macro_rules! declared {
    ($($kind:ident),+) => {$(
        impl<const N: usize> Declared for $kind<N> {
            fn metric(&self) -> &Metric {
                &self.0.metric
            }

            fn register(&self, registry: &mut registry::Registry) {
                self.0.register(registry);
            }
        }
    )+};
}
declared!(Counter, Gauge, Histogram);
