//! What is wrong with a body or a query, in the words of Nova and of Python's `jsonschema`.

use std::cmp::Ordering;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::paths::LocationSegment;
use serde_json::Value;

use super::python::{Python, Step, quoted};

/// Where the invalid thing was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// In the body.
    Body,
    /// In the query.
    Query,
}

/// Nova reports one error: the one that Python's validator meets first. It looks into properties (ours are checked by name)
/// before it looks at what an object lacks or has too much of.
pub(super) fn first<'e>(errors: impl Iterator<Item = ValidationError<'e>>) -> Option<ValidationError<'e>> {
    errors.min_by(in_pythons_order)
}

fn in_pythons_order(a: &ValidationError<'_>, b: &ValidationError<'_>) -> Ordering {
    let (path_a, path_b) = (steps(a), steps(b));
    let common = path_a.iter().zip(&path_b).find(|(x, y)| x != y);
    let by_path = match common {
        Some((Step::Key(x), Step::Key(y))) => x.cmp(y),
        Some((Step::Index(x), Step::Index(y))) => x.cmp(y),
        Some((Step::Key(_), Step::Index(_))) => Ordering::Less,
        Some((Step::Index(_), Step::Key(_))) => Ordering::Greater,
        None => path_b.len().cmp(&path_a.len()), // The inner one first.
    };
    by_path.then_with(|| rank(a.kind()).cmp(&rank(b.kind())))
}

/// The order of keywords in Nova's schemas.
fn rank(kind: &Kind) -> u8 {
    match kind {
        Kind::Type { .. } => 0,
        Kind::Enum { .. } => 1,
        Kind::MinLength { .. } | Kind::MinItems { .. } | Kind::Minimum { .. } => 2,
        Kind::MaxLength { .. } | Kind::MaxItems { .. } | Kind::Maximum { .. } => 3,
        Kind::Pattern { .. } | Kind::Format { .. } => 4,
        Kind::Required { .. } => 5,
        Kind::AdditionalProperties { .. } => 6,
        _ => 7,
    }
}

fn steps(error: &ValidationError<'_>) -> Vec<Step> {
    let segments = error.instance_path().segments();
    segments
        .map(|segment| match segment {
            LocationSegment::Property(name) => Step::Key(name.into_owned()),
            LocationSegment::Index(index) => Step::Index(index),
        })
        .collect()
}

/// The message for an error found in `whole`, which was held against `schema`.
pub(super) fn render(error: &ValidationError<'_>, schema: &Value, whole: &Python, place: Where) -> String {
    let path = steps(error);
    let value = whole.at(&path);
    let reason = reason(error, schema, value);
    let named = match place {
        Where::Body => path.last().map(|step| ("field/attribute", step)),
        Where::Query => path.first().map(|step| ("query parameters", step)),
    };
    match named {
        None => reason,
        Some((what, step)) => {
            let name = match step {
                Step::Key(name) => name.clone(),
                Step::Index(index) => index.to_string(),
            };
            format!("Invalid input for {what} {name}. Value: {}. {reason}", value.str())
        }
    }
}

fn reason(error: &ValidationError<'_>, schema: &Value, value: &Python) -> String {
    let shown = value.repr();
    // The schema's own words, which the validator does not keep in their order.
    let keyword = || schema.pointer(error.schema_path().as_str()).map_or(Python::None, Python::from);
    match error.kind() {
        Kind::Required { property } => format!("{} is a required property", Python::from(property).repr()),
        Kind::AdditionalProperties { unexpected } => {
            let path = error.schema_path().as_str();
            let parent = path.strip_suffix("/additionalProperties").and_then(|path| schema.pointer(path));
            unexpected_properties(unexpected, parent.and_then(|object| object.get("patternProperties")))
        }
        Kind::Type { .. } => {
            let types = match keyword() {
                Python::List(types) => types.iter().map(Python::repr).collect::<Vec<_>>().join(", "),
                one => one.repr(),
            };
            format!("{shown} is not of type {types}")
        }
        Kind::Enum { .. } => format!("{shown} is not one of {}", keyword().repr()),
        Kind::Pattern { pattern } => format!("{shown} does not match {}", quoted(pattern)),
        Kind::MinLength { limit: 1 } | Kind::MinItems { limit: 1 } | Kind::MinProperties { limit: 1 } => {
            format!("{shown} should be non-empty")
        }
        Kind::MinLength { .. } | Kind::MinItems { .. } => format!("{shown} is too short"),
        Kind::MaxLength { .. } | Kind::MaxItems { .. } => format!("{shown} is too long"),
        Kind::MinProperties { .. } => format!("{shown} does not have enough properties"),
        Kind::MaxProperties { .. } => format!("{shown} has too many properties"),
        Kind::Format { format } => format!("{shown} is not a {}", quoted(format)),
        Kind::Minimum { limit } => format!("{shown} is less than the minimum of {limit}"),
        Kind::Maximum { limit } => format!("{shown} is greater than the maximum of {limit}"),
        _ => error.to_string(),
    }
}

fn unexpected_properties(names: &[String], patterns: Option<&Value>) -> String {
    let mut names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    names.sort();
    let (all, one) = (names.join(", "), names.len() == 1);
    if let Some(patterns) = patterns.and_then(Value::as_object) {
        let patterns: Vec<String> = patterns.keys().map(|pattern| quoted(pattern)).collect();
        let does = if one { "does" } else { "do" };
        format!("{all} {does} not match any of the regexes: {}", patterns.join(", "))
    } else {
        let was = if one { "was" } else { "were" };
        format!("Additional properties are not allowed ({all} {was} unexpected)")
    }
}
