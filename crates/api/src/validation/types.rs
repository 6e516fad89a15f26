//! The building blocks of the schemas (`nova/api/validation/parameter_types.py`).

use serde_json::{Value, json};

/// A boolean, or one of the spellings that Nova takes for one.
pub(crate) fn boolean() -> Value {
    json!({"type": ["boolean", "string"], "enum": boolean_spellings()})
}

/// Every spelling of [`boolean`].
pub(crate) fn boolean_spellings() -> Vec<Value> {
    let texts = |spellings: [&str; 10]| spellings.map(Value::from);
    let mut all = vec![Value::Bool(true)];
    all.extend(texts(["True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes"]));
    all.push(Value::Bool(false));
    all.extend(texts(["False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no"]));
    all
}

/// What a value that passed [`boolean`] means.
pub(crate) fn as_bool(value: &Value) -> bool {
    match value {
        Value::Bool(given) => *given,
        Value::String(text) => matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "on" | "yes"),
        _ => false,
    }
}

/// The name of a host.
pub(crate) fn fqdn() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9-._]*$"})
}

/// 1 to 255 characters.
pub(crate) fn text() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255})
}

/// A name: 1 to 255 printable characters, no white space at its ends.
pub(crate) fn name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^(?!\\s)[^\\x00-\\x1f\\x7f-\\x9f]*(?<!\\s)$"})
}

/// A number in a query.
pub(crate) fn non_negative_integer() -> Value {
    json!({"type": "string", "pattern": "^[0-9]*$"})
}

/// A point in time in a query.
pub(crate) fn date_time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

/// A query parameter that may come once.
pub(crate) fn single(schema: &Value) -> Value {
    json!({"type": "array", "items": schema, "maxItems": 1})
}

/// A query parameter that may come several times.
pub(crate) fn multi(schema: &Value) -> Value {
    json!({"type": "array", "items": schema})
}

/// A query parameter of any text.
pub(crate) fn common() -> Value {
    multi(&json!({"type": "string"}))
}

/// A query parameter with a regular expression.
pub(crate) fn regex() -> Value {
    multi(&json!({"type": "string", "format": "regex"}))
}
