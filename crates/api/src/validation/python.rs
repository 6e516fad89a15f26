//! JSON as Python shows it: Nova puts values into its messages with `str` and `repr`, and so do we.
//!
//! Unlike `serde_json::Value` this keeps the order of an object's keys, which `repr` shows.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Python {
    /// `null`
    None,
    /// `true`, `false`
    Bool(bool),
    /// A number, as Python would write it.
    Number(String),
    /// A string.
    Str(String),
    /// An array.
    List(Vec<Python>),
    /// An object, its keys in their order.
    Dict(Vec<(String, Python)>),
}

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the value of a key.
    Key(String),
    /// To an item.
    Index(usize),
}

impl Python {
    /// What is at the end of `path`.
    pub(crate) fn at(&self, path: &[Step]) -> &Self {
        const NOTHING: &Python = &Python::None;
        path.iter().fold(self, |value, step| match (value, step) {
            (Self::Dict(entries), Step::Key(key)) => entries.iter().find(|(k, _)| k == key).map_or(NOTHING, |(_, v)| v),
            (Self::List(items), Step::Index(index)) => items.get(*index).unwrap_or(NOTHING),
            _ => NOTHING,
        })
    }

    /// `str(value)`.
    pub(crate) fn str(&self) -> String {
        match self {
            Self::Str(text) => text.clone(),
            other => other.repr(),
        }
    }

    /// `repr(value)`.
    pub(crate) fn repr(&self) -> String {
        match self {
            Self::None => "None".to_owned(),
            Self::Bool(true) => "True".to_owned(),
            Self::Bool(false) => "False".to_owned(),
            Self::Number(number) => number.clone(),
            Self::Str(text) => quoted(text),
            Self::List(items) => format!("[{}]", items.iter().map(Self::repr).collect::<Vec<_>>().join(", ")),
            Self::Dict(entries) => {
                let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{}: {}", quoted(k), v.repr())).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }
}

/// `repr` of a string: single quotes unless only they occur in it; what cannot be printed is escaped.
pub(crate) fn quoted(text: &str) -> String {
    use fmt::Write;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        let written = match c {
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            c if c == quote => write!(out, "\\{c}"),
            c if c.is_control() && u32::from(c) <= 0xff => write!(out, "\\x{:02x}", u32::from(c)),
            c => out.write_char(c),
        };
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    out.push(quote);
    out
}

impl From<&serde_json::Value> for Python {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::None,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => Self::Number(n.to_string()),
            Value::String(s) => Self::Str(s.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(entries) => Self::Dict(entries.iter().map(|(k, v)| (k.clone(), v.into())).collect()),
        }
    }
}

impl<'de> Deserialize<'de> for Python {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Python;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Python, E> {
        Ok(Python::None)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Python, E> {
        Ok(Python::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Python, E> {
        Ok(Python::Number(value.to_string()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Python, E> {
        Ok(Python::Number(value.to_string()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Python, E> {
        Ok(Python::Number(format!("{value:?}")))
    }
    fn visit_str<E>(self, value: &str) -> Result<Python, E> {
        Ok(Python::Str(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Python, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Python::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Python, A::Error> {
        let mut dict: Vec<(String, Python)> = Vec::new();
        while let Some((key, value)) = entries.next_entry::<String, Python>()? {
            // A key that comes again keeps its place and takes the later value.
            match dict.iter_mut().find(|(k, _)| *k == key) {
                Some(entry) => entry.1 = value,
                None => dict.push((key, value)),
            }
        }
        Ok(Python::Dict(dict))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Python {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn values_look_as_in_python() {
        for (json, repr) in [
            ("null", "None"),
            ("true", "True"),
            ("-5", "-5"),
            ("1.0", "1.0"),
            (r#""x""#, "'x'"),
            (r#""it's""#, r#""it's""#),
            (r#""it's \"x\"""#, r#"'it\'s "x"'"#),
            (r#""a\nb\u0007\\""#, r"'a\nb\x07\\'"),
            (r#""ü""#, "'ü'"),
            (r#"{"b": [1, null], "a": {"c": false}}"#, "{'b': [1, None], 'a': {'c': False}}"),
            (r#"{"a": 1, "b": 2, "a": 3}"#, "{'a': 3, 'b': 2}"),
        ] {
            assert_eq!(read(json).repr(), repr);
        }
        assert_eq!(read(r#""plain""#).str(), "plain");
        assert_eq!(read(r#"["plain"]"#).str(), "['plain']");
    }

    #[test]
    fn a_path_leads_into_a_value() {
        let value = read(r#"{"a": [{"b": 7}]}"#);
        let path = [Step::Key("a".to_owned()), Step::Index(0), Step::Key("b".to_owned())];
        assert_eq!(value.at(&path), &Python::Number("7".to_owned()));
        assert_eq!(value.at(&[Step::Index(9)]), &Python::None);
    }
}
