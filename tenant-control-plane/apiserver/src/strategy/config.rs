//! ConfigMap and Secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::Cause;
use serde_json::{Value, json};

use super::{Context, Strategy, cause, child, default_to};

/// Largest sum of all values, bytes.
const MAX_DATA: usize = 1024 * 1024;

/// ConfigMap.
pub fn config_map() -> Strategy {
    Strategy { check: check_config_map, ..Strategy::default() }
}

/// Secret.
pub fn secret() -> Strategy {
    Strategy {
        on_create: |object, _: &Context<'_>| fold_string_data(object),
        on_update: |object, _| fold_string_data(object),
        check: check_secret,
        ..Strategy::default()
    }
}

/// `stringData` is for writing only: it lands in `data`.
fn fold_string_data(object: &mut Value) {
    default_to(object, "type", "Opaque".into());
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|o| o.remove("stringData"))
    else {
        return;
    };
    let data = child(object, "data");
    for (key, value) in plain {
        data[key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
    }
}

fn check_keys(object: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    for field in fields {
        for (key, _) in object[*field].as_object().into_iter().flatten() {
            let shaped = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if key.is_empty() || key.len() > 253 || !shaped || key == "." || key == ".." {
                causes.push(cause(
                    "FieldValueInvalid",
                    &format!("{field}[{key}]"),
                    format!(
                        "Invalid value: {key:?}: a valid config key must consist of alphanumeric \
                         characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or \
                         'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                    ),
                ));
            }
        }
    }
}

fn size(object: &Value, field: &str, decode: bool) -> usize {
    let values = object[field].as_object().into_iter().flatten();
    values
        .map(|(key, v)| {
            key.len() + v.as_str().map_or(0, |s| if decode { s.len() / 4 * 3 } else { s.len() })
        })
        .sum()
}

fn check_immutable(new: &Value, old: Option<&Value>, fields: &[&str], causes: &mut Vec<Cause>) {
    let Some(old) = old.filter(|old| old["immutable"] == json!(true)) else { return };
    if new["immutable"] != json!(true) {
        causes.push(cause(
            "FieldValueForbidden",
            "immutable",
            "Forbidden: field is immutable when `immutable` is set",
        ));
    }
    for field in fields.iter().filter(|f| new[**f] != old[**f]) {
        causes.push(cause(
            "FieldValueForbidden",
            field,
            "Forbidden: field is immutable when `immutable` is set",
        ));
    }
}

fn check_config_map(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    check_keys(new, &["data", "binaryData"], &mut causes);
    if size(new, "data", false) + size(new, "binaryData", true) > MAX_DATA {
        causes.push(cause(
            "FieldValueTooLong",
            "",
            format!("Too long: may not be more than {MAX_DATA} bytes"),
        ));
    }
    check_immutable(new, old, &["data", "binaryData"], &mut causes);
    causes
}

fn check_secret(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    check_keys(new, &["data"], &mut causes);
    for (key, value) in new["data"].as_object().into_iter().flatten() {
        if value.as_str().is_none_or(|s| STANDARD.decode(s).is_err()) {
            causes.push(cause(
                "FieldValueInvalid",
                &format!("data[{key}]"),
                "Invalid value: must be base64-encoded",
            ));
        }
    }
    if size(new, "data", true) > MAX_DATA {
        causes.push(cause(
            "FieldValueTooLong",
            "data",
            format!("Too long: may not be more than {MAX_DATA} bytes"),
        ));
    }
    if let Some(old) = old {
        causes.extend(super::immutable("type", &new["type"], &old["type"]));
    }
    check_immutable(new, old, &["data"], &mut causes);
    let required: &[&str] = match new["type"].as_str().unwrap_or_default() {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required.iter().filter(|key| new["data"].get(**key).is_none()) {
        causes.push(cause("FieldValueRequired", &format!("data[{key}]"), "Required value"));
    }
    causes
}
