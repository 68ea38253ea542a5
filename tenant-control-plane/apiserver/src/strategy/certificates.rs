//! CertificateSigningRequest: who asks is taken from the request, never from the object.

use serde_json::{Value, json};

use super::{Context, Strategy, keep};

/// CertificateSigningRequest.
pub fn signing_request() -> Strategy {
    Strategy {
        on_create,
        on_update: |object, old| keep(object, old, "spec"),
        on_status: keep_decision,
        ..Strategy::default()
    }
}

fn on_create(object: &mut Value, context: &Context<'_>) {
    let Some(spec) = object["spec"].as_object_mut() else { return };
    let user = context.user;
    for key in ["username", "uid", "groups", "extra"] {
        spec.remove(key);
    }
    spec.insert("username".into(), user.name.clone().into());
    if !user.uid.is_empty() {
        spec.insert("uid".into(), user.uid.clone().into());
    }
    if !user.groups.is_empty() {
        spec.insert("groups".into(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
}

/// The status subresource writes the certificate and `Failed`; `Approved` and `Denied` belong to
/// the approval subresource.
fn keep_decision(new: &mut Value, old: &Value) {
    let is_decision = |c: &&Value| c["type"] == "Approved" || c["type"] == "Denied";
    let list = |v: &Value| v["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let (new_list, old_list) = (list(new), list(old));
    let mut conditions: Vec<Value> = old_list.iter().filter(is_decision).cloned().collect();
    conditions.extend(new_list.iter().filter(|c| !is_decision(c)).cloned());
    if !conditions.is_empty() {
        new["status"]["conditions"] = conditions.into();
    }
}

/// The approval subresource writes conditions only; times are filled in.
pub fn approve(new: &mut Value, old: &Value, now: &str) {
    let mut conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let old_conditions = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for condition in &mut conditions {
        let known = old_conditions.iter().find(|c| c["type"] == condition["type"]);
        let since = match known {
            Some(k) if k["status"] == condition["status"] => k["lastTransitionTime"].clone(),
            _ => now.into(),
        };
        super::default_to(condition, "lastUpdateTime", now.into());
        super::default_to(condition, "lastTransitionTime", since);
    }
    let mut next = old["status"].as_object().cloned().unwrap_or_default();
    next.insert("conditions".into(), conditions.into());
    new["status"] = Value::Object(next);
    keep(new, old, "spec");
}
