//! Checks a value against a structural schema, with upstream's texts.
//!
//! `x-kubernetes-validations` (CEL) are not evaluated here.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, OnceLock};

use machinery::Cause;
use regex::Regex;
use serde_json::{Map, Value};

use crate::place::At;
use crate::validate::Faults;

/// Most compiled patterns that are kept.
const PATTERNS: usize = 512;
/// Most bytes that one compiled pattern may take.
const PATTERN_SIZE: usize = 1 << 20;
/// Deepest value that is followed.
const MAX_DEPTH: usize = 128;

/// What is wrong with a custom resource by its `openAPIV3Schema`. `metadata` is not looked at.
pub fn validate(schema: &Value, object: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    if let (Value::Object(fields), Some(properties)) = (object, schema["properties"].as_object()) {
        for (name, value) in fields {
            if let Some(property) = properties.get(name).filter(|_| !is_envelope(name)) {
                check(property, value, &At::new(name), &mut faults, 0);
            }
        }
        for name in
            required(schema).filter(|name| !is_envelope(name) && !fields.contains_key(*name))
        {
            faults.required(&At::new(name), "");
        }
    }
    faults.into_causes()
}

fn is_envelope(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn check(schema: &Value, value: &Value, at: &At<'_>, faults: &mut Faults, depth: usize) {
    if depth > MAX_DEPTH || (value.is_null() && schema["nullable"] == true) {
        return;
    }
    if !has_type(schema, value) {
        let wanted = schema["type"].as_str().unwrap_or("integer,string");
        let found = type_name(value);
        let why = format!("{at} in body must be of type {wanted}: {found:?}");
        faults.invalid(at, found, &why);
        return;
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        let texts: Vec<String> = allowed.iter().map(plain).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        faults.unsupported(at, &plain(value), &texts);
    }
    match value {
        Value::String(text) => check_text(schema, text, at, faults),
        Value::Number(number) => {
            check_number(schema, number.as_f64().unwrap_or_default(), value, at, faults)
        }
        Value::Array(items) => check_list(schema, items, at, faults, depth),
        Value::Object(fields) => check_map(schema, fields, at, faults, depth),
        Value::Null | Value::Bool(_) => {}
    }
    check_junctors(schema, value, at, faults, depth);
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return matches!(type_name(value), "integer" | "string");
    }
    match (schema["type"].as_str(), type_name(value)) {
        (None | Some(""), _) | (Some("number"), "integer") => true,
        // A whole number with a fraction of zero is an integer.
        (Some("integer"), "number") => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        (Some(wanted), found) => wanted == found,
    }
}

fn size(schema: &Value, name: &str) -> Option<usize> {
    schema[name].as_u64().and_then(|n| usize::try_from(n).ok())
}

fn check_text(schema: &Value, text: &str, at: &At<'_>, faults: &mut Faults) {
    let length = text.chars().count();
    if size(schema, "minLength").is_some_and(|min| length < min) {
        let why = format!("{at} in body should be at least {} chars long", schema["minLength"]);
        faults.invalid(at, text, &why);
    }
    if let Some(max) = size(schema, "maxLength").filter(|max| length > *max) {
        faults.too_long(at, max);
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !matches_pattern(pattern, text)
    {
        faults.invalid(at, text, &format!("{at} in body should match '{pattern}'"));
    }
    if let Some(format) = schema["format"].as_str()
        && !has_format(format, text)
    {
        faults.invalid(at, text, &format!("{at} in body must be of type {format}: {text:?}"));
    }
}

/// A pattern that cannot be compiled matches everything: its definition should not have passed.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    static KNOWN: OnceLock<Mutex<HashMap<String, Option<Regex>>>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().expect("no panic while locked");
    if known.len() >= PATTERNS {
        known.clear();
    }
    let regex = known
        .entry(pattern.to_owned())
        .or_insert_with(|| regex::RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build().ok());
    let regex = regex.clone();
    drop(known);
    regex.is_none_or(|regex| regex.is_match(text))
}

fn has_format(format: &str, text: &str) -> bool {
    use base64::Engine as _;
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => crate::duration::parse(text).is_some(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "uuid" => {
            let hex = |b: u8| b.is_ascii_hexdigit() || b == b'-';
            matches!(text.len(), 32 | 36) && text.bytes().all(hex)
        }
        // Other formats say something to people but nothing to the server.
        _ => true,
    }
}

fn check_number(schema: &Value, number: f64, value: &Value, at: &At<'_>, faults: &mut Faults) {
    let exclusive = |name: &str| schema[name] == true;
    if let Some(min) = schema["minimum"].as_f64() {
        let is_open = exclusive("exclusiveMinimum");
        if number < min || (is_open && number == min) {
            let how = if is_open { "greater than" } else { "greater than or equal to" };
            faults.invalid(
                at,
                value.clone(),
                &format!("{at} in body should be {how} {}", schema["minimum"]),
            );
        }
    }
    if let Some(max) = schema["maximum"].as_f64() {
        let is_open = exclusive("exclusiveMaximum");
        if number > max || (is_open && number == max) {
            let how = if is_open { "less than" } else { "less than or equal to" };
            faults.invalid(
                at,
                value.clone(),
                &format!("{at} in body should be {how} {}", schema["maximum"]),
            );
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64().filter(|step| *step != 0.0)
        && (number / step).fract() != 0.0
    {
        let why = format!("{at} in body should be a multiple of {}", schema["multipleOf"]);
        faults.invalid(at, value.clone(), &why);
    }
    let fits = match schema["format"].as_str() {
        Some("int32") => value.as_i64().is_none_or(|n| i32::try_from(n).is_ok()),
        _ => true,
    };
    if !fits {
        faults.invalid(at, value.clone(), &format!("{at} in body must be of type int32: {value}"));
    }
}

fn check_list(schema: &Value, items: &[Value], at: &At<'_>, faults: &mut Faults, depth: usize) {
    if size(schema, "minItems").is_some_and(|min| items.len() < min) {
        let why = format!("{at} in body should have at least {} items", schema["minItems"]);
        faults.invalid(at, items.len(), &why);
    }
    if let Some(max) = size(schema, "maxItems").filter(|max| items.len() > *max) {
        faults.too_many(at, items.len(), max);
        return;
    }
    let is_set = schema["x-kubernetes-list-type"] == "set" || schema["uniqueItems"] == true;
    let keys: Vec<&str> = match schema["x-kubernetes-list-type"] == "map" {
        true => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            keys.into_iter().flatten().filter_map(Value::as_str).collect()
        }
        false => Vec::new(),
    };
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let here = at.index(index);
        let identity = match keys.is_empty() {
            true => is_set.then(|| item.clone()),
            false => {
                let part = |key: &&str| Some(((*key).to_owned(), item.get(*key)?.clone()));
                Some(Value::Object(keys.iter().filter_map(part).collect::<Map<_, _>>()))
            }
        };
        if let Some(identity) = identity
            && !seen.insert(identity.clone())
        {
            faults.duplicate(&here, identity);
        }
        check(&schema["items"], item, &here, faults, depth + 1);
    }
}

fn check_map(
    schema: &Value,
    fields: &Map<String, Value>,
    at: &At<'_>,
    faults: &mut Faults,
    depth: usize,
) {
    for name in required(schema).filter(|name| !fields.contains_key(*name)) {
        faults.required(&at.field(name), "");
    }
    if size(schema, "minProperties").is_some_and(|min| fields.len() < min) {
        let why =
            format!("{at} in body should have at least {} properties", schema["minProperties"]);
        faults.invalid(at, fields.len(), &why);
    }
    if let Some(max) = size(schema, "maxProperties").filter(|max| fields.len() > *max) {
        faults.too_many(at, fields.len(), max);
    }
    for (name, value) in fields {
        if let Some(property) = schema["properties"].get(name) {
            check(property, value, &at.field(name), faults, depth + 1);
        } else if schema["additionalProperties"].is_object() {
            check(&schema["additionalProperties"], value, &at.key(name), faults, depth + 1);
        }
    }
}

fn check_junctors(schema: &Value, value: &Value, at: &At<'_>, faults: &mut Faults, depth: usize) {
    let passes = |schema: &Value| {
        let mut found = Faults::default();
        check(schema, value, at, &mut found, depth + 1);
        found.into_causes().is_empty()
    };
    let several = |name: &str| schema[name].as_array();
    if let Some(all) = several("allOf") {
        for one in all {
            check(one, value, at, faults, depth + 1);
        }
    }
    if several("anyOf").is_some_and(|any| !any.iter().any(passes)) {
        faults.invalid(
            at,
            value.clone(),
            &format!("{at} in body must validate at least one schema (anyOf)"),
        );
    }
    if several("oneOf").is_some_and(|one| one.iter().filter(|s| passes(s)).count() != 1) {
        faults.invalid(
            at,
            value.clone(),
            &format!("{at} in body must validate one and only one schema (oneOf)"),
        );
    }
    if schema.get("not").is_some_and(passes) {
        faults.invalid(
            at,
            value.clone(),
            &format!("{at} in body must not validate the schema (not)"),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(schema: Value, value: Value) -> Vec<String> {
        let causes = validate(&json!({"properties": {"spec": schema}}), &json!({"spec": value}));
        causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    #[test]
    fn each_rule_speaks_in_upstreams_words() {
        let cases = [
            (
                json!({"type": "integer"}),
                json!("x"),
                "spec: Invalid value: \"string\": spec in body must be of type integer: \"string\"",
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "string", "enum": ["b", "a"]}),
                json!("c"),
                "spec: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                "spec: Invalid value: \"b\": spec in body should match '^a+$'",
            ),
            (
                json!({"type": "string", "maxLength": 2}),
                json!("abc"),
                "spec: Too long: may not be more than 2 bytes",
            ),
            (
                json!({"type": "array", "maxItems": 1, "items": {}}),
                json!([1, 2]),
                "spec: Too many: 2: must have at most 1 items",
            ),
            (json!({"type": "object", "required": ["a"]}), json!({}), "spec.a: Required value"),
            (
                json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
                json!(["a", "a"]),
                "spec[1]: Duplicate value: \"a\"",
            ),
            (
                json!({"x-kubernetes-int-or-string": true, "oneOf": [{"type": "integer"}]}),
                json!("a"),
                "spec: Invalid value: \"a\": spec in body must validate one and only one schema (oneOf)",
            ),
        ];
        for (schema, value, wanted) in cases {
            assert_eq!(found(schema, value), [wanted]);
        }
    }

    #[test]
    fn what_fits_passes() {
        let schema = json!({"type": "object", "properties": {
            "when": {"type": "string", "format": "date-time"},
            "ratio": {"type": "number", "exclusiveMinimum": true, "minimum": 0},
            "maybe": {"type": "string", "nullable": true},
            "by": {"type": "object", "additionalProperties": {"type": "integer"}}}});
        let value =
            json!({"when": "2026-01-01T00:00:00Z", "ratio": 1, "maybe": null, "by": {"a": 1}});
        assert!(found(schema, value).is_empty());
    }
}
