//! Holds bodies and queries against JSON Schemas, one a range of microversions, and says what is wrong in Nova's words.
//!
//! The schemas stand beside the handlers that they guard. Whatever passes one can be taken apart without further checks of its
//! form. *Adding a version:* another `(since, schema)` pair at the end of the list; the newest that is not too new counts.

mod message;
pub(crate) mod python;
pub(crate) mod types;

use serde_json::{Map, Value, json};

use self::message::Where;
use self::python::Python;
use crate::error::ApiError;
use crate::extract::Body;
use crate::microversion::Microversion;
use crate::time;

/// The schemas of one body or query, oldest first.
pub(crate) struct Schemas(Vec<Schema>);

struct Schema {
    since: Microversion,
    source: Value,
    validator: jsonschema::Validator,
}

impl Schemas {
    /// Compiles `(since, schema)` pairs, oldest first. For statics: a schema that does not compile is a defect, and every one is
    /// compiled by a test.
    pub(crate) fn new(schemas: impl IntoIterator<Item = (Microversion, Value)>) -> Self {
        let compiled = schemas.into_iter().map(|(since, source)| {
            let options =
                jsonschema::options().should_validate_formats(true).with_format("date-time", |t: &str| time::parse(t).is_some());
            match options.build(&source) {
                Ok(validator) => Schema { since, source, validator },
                Err(error) => panic!("schema since {since} does not compile: {error}"),
            }
        });
        Self(compiled.collect())
    }

    /// The schemas themselves, for people and programs to read; of several each says since when it holds.
    pub(crate) fn documents(&self) -> Vec<Value> {
        let titled = |schema: &Schema| {
            let mut document = schema.source.clone();
            if self.0.len() > 1 {
                document["title"] = json!(format!("since {}", schema.since));
            }
            document
        };
        self.0.iter().map(titled).collect()
    }

    /// The parameters of a query that any microversion has, each as the newest of those has it.
    pub(crate) fn parameters(&self) -> Map<String, Value> {
        let mut parameters = Map::new();
        for schema in &self.0 {
            parameters.extend(schema.source["properties"].as_object().cloned().unwrap_or_default());
        }
        parameters
    }

    fn at(&self, version: Microversion) -> Result<&Schema, ApiError> {
        self.0.iter().rev().find(|schema| schema.since <= version).ok_or(ApiError::NotInThisVersion)
    }

    /// Checks a body.
    pub(crate) fn check_body(&self, version: Microversion, body: &Body) -> Result<(), ApiError> {
        let schema = self.at(version)?;
        if schema.validator.is_valid(&body.value) {
            return Ok(());
        }
        let error = message::first(schema.validator.iter_errors(&body.value));
        Err(ApiError::bad_request(
            error.map_or_else(String::new, |error| message::render(&error, &schema.source, &body.as_python(), Where::Body)),
        ))
    }

    /// Checks a query. Parameters that an open schema does not know are left out, as if they had not been given.
    pub(crate) fn check_query(&self, version: Microversion, parameters: &[(String, String)]) -> Result<Query, ApiError> {
        let schema = self.at(version)?;
        let mut given: Vec<(String, Python)> = Vec::new();
        for (name, value) in parameters {
            let value = Python::Str(value.clone());
            match given.iter_mut().find(|(n, _)| n == name) {
                Some((_, Python::List(values))) => values.push(value),
                _ => given.push((name.clone(), Python::List(vec![value]))),
            }
        }
        let object: Value = given.iter().map(|(name, values)| (name.clone(), texts(values))).collect();
        if !schema.validator.is_valid(&object) {
            let error = message::first(schema.validator.iter_errors(&object));
            return Err(ApiError::bad_request(
                error.map_or_else(String::new, |error| message::render(&error, &schema.source, &Python::Dict(given), Where::Query)),
            ));
        }
        let known = parameters.iter().filter(|(name, _)| schema.knows(name));
        Ok(Query(known.cloned().collect()))
    }
}

impl Schema {
    fn knows(&self, name: &str) -> bool {
        let declared = self.source["properties"].get(name).is_some();
        // The only pattern in Nova's query schemas: internal names, which are refused later.
        declared || (name.starts_with('_') && self.source.get("patternProperties").is_some())
    }
}

fn texts(values: &Python) -> Value {
    match values {
        Python::List(items) => items.iter().map(Python::str).collect(),
        other => Value::String(other.str()),
    }
}

/// A query that passed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// The parameter's value; of several the last counts, as in Nova.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// All values of the parameter.
    pub(crate) fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The names that were given.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The size of the page: `limit`, at most `max`.
    pub(crate) fn limit(&self, max: u32) -> Result<i64, ApiError> {
        match self.get("limit") {
            None => Ok(max.into()),
            Some("") => Err(ApiError::bad_request("limit param must be an integer")),
            // Digits only: what does not fit is more than the maximum.
            Some(text) => Ok(text.parse::<i64>().unwrap_or(i64::MAX).min(max.into())),
        }
    }

    /// A point in time.
    pub(crate) fn time(&self, name: &str) -> Option<chrono::DateTime<chrono::Utc>> {
        self.get(name).and_then(time::parse)
    }

    /// `changes-since` and `changes-before`, in the right order.
    pub(crate) fn changes(&self) -> Result<Changes, ApiError> {
        let changes = Changes { since: self.time("changes-since"), before: self.time("changes-before") };
        match (changes.since, changes.before) {
            (Some(since), Some(before)) if since > before => {
                Err(ApiError::bad_request("The value of changes-since must be less than or equal to changes-before."))
            }
            _ => Ok(changes),
        }
    }
}

/// Between when something must have changed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Changes {
    /// At this time or after it.
    pub(crate) since: Option<chrono::DateTime<chrono::Utc>>,
    /// At this time or before it.
    pub(crate) before: Option<chrono::DateTime<chrono::Utc>>,
}

#[cfg(test)]
mod tests {
    use super::types::{boolean, common, date_time, fqdn, non_negative_integer, regex, single};
    use super::*;
    use crate::microversion::v2;
    use axum::body::Bytes;

    fn host() -> Value {
        let mut host = fqdn();
        host["type"] = json!(["string", "null"]);
        host
    }

    fn bodies() -> Schemas {
        let arguments = json!({
            "type": "object",
            "properties": {"host": host(), "block_migration": boolean(), "disk_over_commit": boolean()},
            "required": ["block_migration", "disk_over_commit", "host"],
            "additionalProperties": false,
        });
        Schemas::new([(
            v2(1),
            json!({
                "type": "object",
                "properties": {"os-migrateLive": arguments, "nothing": {"type": "null"}},
                "additionalProperties": false,
            }),
        )])
    }

    fn complaint(body: &str) -> String {
        let body = Body::for_test(Bytes::copy_from_slice(body.as_bytes()));
        bodies().check_body(v2(1), &body).map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn bodies_are_refused_in_novas_words() {
        let many = "[True, 'True', 'TRUE', 'true', '1', 'ON', 'On', 'on', 'YES', 'Yes', 'yes', False, 'False', 'FALSE', 'false', '0', \
                    'OFF', 'Off', 'off', 'NO', 'No', 'no']";
        let long = "a".repeat(256);
        let with = |host: &str, block: &str, rest: &str| {
            format!(r#"{{"os-migrateLive": {{"host": {host}, "block_migration": {block}, "disk_over_commit": false{rest}}}}}"#)
        };
        for (body, expected) in [
            (String::new(), "None is not of type 'object'".to_owned()),
            ("null".to_owned(), "None is not of type 'object'".to_owned()),
            (with("null", "\"yes\"", ""), "fine".to_owned()),
            (
                r#"{"os-migrateLive": {"host": "h", "block_migration": true}}"#.to_owned(),
                "Invalid input for field/attribute os-migrateLive. Value: {'host': 'h', 'block_migration': True}. 'disk_over_commit' \
                 is a required property"
                    .to_owned(),
            ),
            (
                with("\"\"", "true", ""),
                "Invalid input for field/attribute host. Value: . '' should be non-empty".to_owned(),
            ),
            (
                with("5", "true", ""),
                "Invalid input for field/attribute host. Value: 5. 5 is not of type 'string', 'null'".to_owned(),
            ),
            (
                with("\"h h\"", "true", ""),
                "Invalid input for field/attribute host. Value: h h. 'h h' does not match '^[a-zA-Z0-9-._]*$'".to_owned(),
            ),
            (
                with(&format!("\"{long}\""), "true", ""),
                format!("Invalid input for field/attribute host. Value: {long}. '{long}' is too long"),
            ),
            (
                with("\"h\"", "\"t\"", ""),
                format!("Invalid input for field/attribute block_migration. Value: t. 't' is not one of {many}"),
            ),
            (
                with("\"h\"", "1", ""),
                "Invalid input for field/attribute block_migration. Value: 1. 1 is not of type 'boolean', 'string'".to_owned(),
            ),
            (
                with("\"h\"", "null", ""),
                "Invalid input for field/attribute block_migration. Value: None. None is not of type 'boolean', 'string'".to_owned(),
            ),
            (
                with("\"h\"", "true", ", \"x\": 1"),
                "Invalid input for field/attribute os-migrateLive. Value: {'host': 'h', 'block_migration': True, \
                 'disk_over_commit': False, 'x': 1}. Additional properties are not allowed ('x' was unexpected)"
                    .to_owned(),
            ),
            (
                r#"{"foo": 1, "bar": 2}"#.to_owned(),
                "Additional properties are not allowed ('bar', 'foo' were unexpected)".to_owned(),
            ),
            (
                r#"{"nothing": {}}"#.to_owned(),
                "Invalid input for field/attribute nothing. Value: {}. {} is not of type 'null'".to_owned(),
            ),
            // The first of several, as Python meets them: inside before outside, missing before superfluous.
            (
                r#"{"os-migrateLive": {"host": 5, "x": 1}, "y": 1}"#.to_owned(),
                "Invalid input for field/attribute host. Value: 5. 5 is not of type 'string', 'null'".to_owned(),
            ),
            (
                r#"{"os-migrateLive": {"host": "h", "disk_over_commit": true, "x": 1}}"#.to_owned(),
                "Invalid input for field/attribute os-migrateLive. Value: {'host': 'h', 'disk_over_commit': True, 'x': 1}. \
                 'block_migration' is a required property"
                    .to_owned(),
            ),
        ] {
            assert_eq!(complaint(&body), expected, "{body}");
        }
    }

    fn queries() -> Schemas {
        let properties = json!({
            "limit": single(&non_negative_integer()), "name": regex(), "host": common(), "changes-since": single(&date_time()),
        });
        let open = json!({"type": "object", "properties": properties, "additionalProperties": true});
        let mut closed = open.clone();
        closed["additionalProperties"] = json!(false);
        let mut internal = closed.clone();
        internal["patternProperties"] = json!({"^_": common()});
        Schemas::new([(v2(1), open), (v2(59), closed), (v2(75), internal)])
    }

    fn asked(version: Microversion, query: &str) -> String {
        let parameters = crate::extract::query(query).unwrap();
        queries().check_query(version, &parameters).map_or_else(|error| error.to_string(), |query| format!("{:?}", query.0))
    }

    #[test]
    fn queries_are_refused_in_novas_words() {
        for (version, query, expected) in [
            (v2(1), "limit=-1", "Invalid input for query parameters limit. Value: -1. '-1' does not match '^[0-9]*$'"),
            (v2(1), "limit=1&limit=2", "Invalid input for query parameters limit. Value: ['1', '2']. ['1', '2'] is too long"),
            (v2(1), "name=%5B", "Invalid input for query parameters name. Value: [. '[' is not a 'regex'"),
            (
                v2(1),
                "changes-since=foo",
                "Invalid input for query parameters changes-since. Value: foo. 'foo' is not a 'date-time'",
            ),
            (v2(59), "foo=1", "Additional properties are not allowed ('foo' was unexpected)"),
            (v2(59), "foo=1&bar=2", "Additional properties are not allowed ('bar', 'foo' were unexpected)"),
            (v2(75), "foo=1", "'foo' does not match any of the regexes: '^_'"),
            (v2(75), "foo=1&bar=1", "'bar', 'foo' do not match any of the regexes: '^_'"),
            (v2(75), "_x=1", r#"[("_x", "1")]"#),
            (v2(1), "foo=1&host=a&host=b", r#"[("host", "a"), ("host", "b")]"#),
        ] {
            assert_eq!(asked(version, query), expected, "{version} {query}");
        }
    }

    #[test]
    fn the_page_is_never_larger_than_the_maximum() {
        let query = |text: &str| queries().check_query(v2(59), &crate::extract::query(text).unwrap()).unwrap();
        assert_eq!(query("").limit(1000).unwrap(), 1000);
        assert_eq!(query("limit=7").limit(1000).unwrap(), 7);
        assert_eq!(query("limit=0").limit(1000).unwrap(), 0);
        assert_eq!(query("limit=99999999999999999999").limit(1000).unwrap(), 1000);
        assert!(query("limit=").limit(1000).is_err());
    }
}
