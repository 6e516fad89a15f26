//! Metrics for Prometheus: every one declared once ([`table`]), counted in memory, told to whoever asks at `[metrics] listen`
//! ([`endpoint`]).
//!
//! Recording is a look into a map and an addition: no message, no await. A label's value is a `&'static str`, so that what is not
//! in the source cannot become one: no UUID, no free text, no path as it was asked for.
//!
//! *Adding a metric:* its declaration in [`table`], a line in `docs/metrics.md`, one call where it happens.

mod endpoint;
mod kinds;
mod table;

pub use endpoint::{EndpointError, routes, serve};
pub use kinds::{Counter, Declared, Gauge, Histogram, Kind, Metric, Unit};
pub use table::*;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// What `service` has, in the text form of `OpenMetrics`.
pub fn expose(service: &str) -> String {
    let mut registry = Registry::default();
    for declared in of(service) {
        declared.register(&mut registry);
    }
    let mut text = String::new();
    encode(&mut text, &registry).ok(); // Writing to a String cannot fail.
    text
}

/// What `service` declares.
pub fn of(service: &str) -> impl Iterator<Item = &'static dyn Declared> {
    ALL.iter().copied().filter(move |declared| declared.metric().services.contains(&service))
}

/// Whether everything that `service` needs was there when it was last looked at, and what each was.
pub fn dependencies(service: &str) -> Vec<(&'static str, bool)> {
    let needed: &[&str] = match service {
        COMPUTE => &["broker", "libvirt"],
        _ => &["broker", "database"],
    };
    needed.iter().map(|name| (*name, DEPENDENCY_UP.value([name]) > 0.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of the table in `docs/metrics.md`.
    fn line(metric: &Metric) -> String {
        let services: Vec<&str> = metric.services.iter().map(|name| name.trim_start_matches("drover-")).collect();
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!(
            "| `{}` | {} | {} | {} | {} |",
            metric.exposed(),
            metric.kind.name(),
            services.join(", "),
            labels.join(", "),
            metric.help
        )
    }

    #[test]
    fn the_document_has_exactly_the_metrics_that_are_declared() {
        let document = include_str!("../../../../docs/metrics.md");
        let mut told: Vec<&str> = document.lines().filter(|line| line.starts_with("| `drover_")).collect();
        let mut declared: Vec<String> = ALL.iter().map(|declared| line(declared.metric())).collect();
        told.sort_unstable();
        declared.sort_unstable();
        assert_eq!(told, declared, "\n{}\n", declared.join("\n"));
    }

    #[test]
    fn names_are_told_once_and_in_prometheus_form() {
        let mut names: Vec<String> = ALL.iter().map(|declared| declared.metric().exposed()).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for name in &names {
            assert!(name.starts_with("drover_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        }
        for declared in ALL {
            let metric = declared.metric();
            assert!(!metric.help.ends_with('.') && !metric.help.contains('|'), "{}", metric.name);
            assert!(!metric.services.is_empty(), "{}", metric.name);
        }
    }

    /// Names in `text` that begin as ours do.
    fn names_in(text: &str) -> Vec<&str> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        words.filter(|word| word.starts_with("drover_") && *word != "drover_").collect()
    }

    #[test]
    fn dashboard_and_alerts_name_only_what_is_declared() {
        let known: Vec<(String, Kind)> = ALL.iter().map(|d| (d.metric().exposed(), d.metric().kind)).collect();
        for (file, text) in [
            ("dashboard.json", include_str!("../../../../deploy/observability/grafana/dashboard.json")),
            ("alerts.yaml", include_str!("../../../../deploy/observability/prometheus/alerts.yaml")),
        ] {
            let named = names_in(text);
            assert!(named.len() > 5, "{file}");
            for name in named {
                let declared = known.iter().any(|(full, kind)| match kind {
                    Kind::Histogram => ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(full)),
                    Kind::Counter | Kind::Gauge => name == full,
                });
                assert!(declared, "{file} names {name}, which is not declared");
            }
        }
    }

    #[test]
    fn what_has_no_labels_is_told_from_the_start() {
        let text = expose(CONDUCTOR);
        for metric in of(CONDUCTOR).map(Declared::metric).filter(|metric| metric.labels.is_empty()) {
            assert!(text.contains(&format!("# TYPE {} ", metric.family())), "{}: {text}", metric.name);
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
