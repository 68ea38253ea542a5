//! What cells are made of: parts of an object as text.

use jiff::Timestamp;
use serde_json::Value;

use crate::duration::human_duration;

pub(crate) const NONE: &str = "<none>";
pub(crate) const UNKNOWN: &str = "<unknown>";
pub(crate) const UNSET: &str = "<unset>";

/// The string at a JSON pointer, empty when there is none.
pub(crate) fn str_at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer, 0 when there is none.
pub(crate) fn int_at(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a JSON pointer, empty when there is none.
pub(crate) fn list_at<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Number of entries of the map or list at a JSON pointer.
pub(crate) fn len_at(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(entries)) => entries.len(),
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    }
}

pub(crate) fn text(object: &Value, pointer: &str) -> Value {
    str_at(object, pointer).into()
}

/// The string at a pointer, or another one when it is empty.
pub(crate) fn text_or(object: &Value, pointer: &str, otherwise: &str) -> Value {
    match str_at(object, pointer) {
        "" => otherwise.into(),
        text => text.into(),
    }
}

pub(crate) fn number(object: &Value, pointer: &str) -> Value {
    int_at(object, pointer).into()
}

/// A string or number as text, or another text when there is neither.
pub(crate) fn plain_or(object: &Value, pointer: &str, otherwise: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(n)) => n.to_string(),
        Some(Value::Bool(on)) => on.to_string(),
        _ => otherwise.to_owned(),
    }
}

pub(crate) fn name(object: &Value) -> Value {
    text(object, "/metadata/name")
}

pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    since(object, "/metadata/creationTimestamp", now).unwrap_or(UNKNOWN.to_owned()).into()
}

/// Time since the timestamp at a pointer, in words.
pub(crate) fn since(object: &Value, pointer: &str, now: Timestamp) -> Option<String> {
    Some(human_duration(now.as_second() - time(object, pointer)?.as_second()))
}

pub(crate) fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    object.pointer(pointer)?.as_str()?.parse().ok()
}

pub(crate) fn joined_or(parts: &[String], by: &str, otherwise: &str) -> String {
    if parts.is_empty() { otherwise.to_owned() } else { parts.join(by) }
}

/// `a=b,c=d` in the order of the keys, or `<none>`.
pub(crate) fn labels(object: &Value, pointer: &str) -> String {
    let Some(Value::Object(map)) = object.pointer(pointer) else { return NONE.to_owned() };
    let mut pairs: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    joined_or(&pairs, ",", NONE)
}

/// A `LabelSelector` in the notation of kubectl's `-l`.
pub(crate) fn selector(object: &Value, pointer: &str) -> String {
    let Some(selector) = object.pointer(pointer) else { return NONE.to_owned() };
    let mut parts: Vec<(String, String)> = Vec::new();
    if let Some(map) = selector["matchLabels"].as_object() {
        parts.extend(
            map.iter().map(|(k, v)| (k.clone(), format!("{k}={}", v.as_str().unwrap_or_default()))),
        );
    }
    for expression in list_at(selector, "/matchExpressions") {
        let key = str_at(expression, "/key");
        let mut values: Vec<&str> =
            list_at(expression, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match str_at(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort();
    let texts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    joined_or(&texts, ",", NONE)
}

/// Names and images of a list of containers.
pub(crate) fn containers(object: &Value, pointer: &str) -> [Value; 2] {
    ["/name", "/image"].map(|part| {
        let parts: Vec<&str> = list_at(object, pointer).iter().map(|c| str_at(c, part)).collect();
        parts.join(",").into()
    })
}

/// The condition of a type, if the object has it.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list_at(object, "/status/conditions").iter().find(|c| c["type"] == kind)
}

/// True when the condition is there and `True`.
pub(crate) fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| c["status"] == "True")
}

/// The first few parts, then how many more there are.
pub(crate) fn first(parts: &[String], most: usize, by: &str) -> String {
    match parts.len().checked_sub(most) {
        Some(more) if more > 0 => format!("{} + {more} more...", parts[..most].join(by)),
        _ => parts.join(by),
    }
}
