//! Configuration, quotas, roles and the smaller kinds.

use machinery::{Quantity, names};
use serde_json::Value;

use super::faults::{entries, int, items, text};
use super::labels::check_selector;
use super::{At, Faults};

/// Highest priority that a class of a user may have.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;

/// Keys of a ConfigMap or Secret. Their size is the API server's own check.
fn keys(object: &Value, lists: &[&str], faults: &mut Faults) {
    for list in lists {
        let at = At::new(list);
        for (key, _) in entries(object, list) {
            let is_fine = key.len() <= names::DNS_SUBDOMAIN_MAX
                && !key.is_empty()
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !is_fine {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                faults.invalid(&at.key(key), key.as_str(), why);
            } else if key == "." || key.starts_with("..") {
                faults.invalid(
                    &at.key(key),
                    key.as_str(),
                    "must not be '.' and must not start with '..'",
                );
            }
        }
    }
}

pub(super) fn config_map(map: &Value, faults: &mut Faults) {
    keys(map, &["data", "binaryData"], faults);
    for (key, _) in entries(map, "binaryData") {
        if map["data"].get(key).is_some() {
            let at = At::new("data");
            faults.invalid(&at.key(key), key.as_str(), "duplicate of key present in binaryData");
        }
    }
}

pub(super) fn secret(secret: &Value, faults: &mut Faults) {
    keys(secret, &["data"], faults);
    let at = At::new("data");
    let needed: &[&str] = match text(secret, "type") {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/service-account-token" => {
            let name = secret
                .pointer("/metadata/annotations")
                .map(|a| text(a, "kubernetes.io/service-account.name"));
            if name.unwrap_or_default().is_empty() {
                let annotations = At::new("metadata.annotations");
                faults.required(&annotations.key("kubernetes.io/service-account.name"), "");
            }
            &[]
        }
        _ => &[],
    };
    for key in needed {
        if secret["data"].get(key).is_none() {
            faults.required(&at.key(key), "");
        }
    }
}

pub(super) fn resource_quota(quota: &Value, faults: &mut Faults) {
    let at = At::new("spec.hard");
    for (name, amount) in entries(&quota["spec"], "hard") {
        faults.text(&at.key(name), name, names::qualified_name);
        if Quantity::from_json(amount).is_ok_and(Quantity::is_negative) {
            faults.invalid(&at.key(name), amount.clone(), "must be greater than or equal to 0");
        }
    }
}

pub(super) fn limit_range(range: &Value, faults: &mut Faults) {
    let list = At::new("spec.limits");
    for (index, limit) in items(&range["spec"], "limits").iter().enumerate() {
        let here = list.index(index);
        for (low, high) in
            [("min", "max"), ("min", "default"), ("default", "max"), ("defaultRequest", "default")]
        {
            for (name, amount) in entries(limit, low) {
                let bound = limit.get(high).and_then(|h| h.get(name));
                let (Some(bound), Ok(value)) = (bound, Quantity::from_json(amount)) else {
                    continue;
                };
                if Quantity::from_json(bound).is_ok_and(|bound| value > bound) {
                    let (value, bound) = (plain(amount), plain(bound));
                    let why = format!("{low} value {value} is greater than {high} value {bound}");
                    let place = here.field(low);
                    faults.invalid(&place.key(name), amount.clone(), &why);
                }
            }
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn role(role: &Value, faults: &mut Faults) {
    let list = At::new("rules");
    let is_namespaced = role["kind"] == "Role";
    for (index, rule) in items(role, "rules").iter().enumerate() {
        let here = list.index(index);
        if items(rule, "verbs").is_empty() {
            faults.required(&here.field("verbs"), "verbs must contain at least one value");
        }
        if !items(rule, "nonResourceURLs").is_empty() {
            if is_namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                faults.invalid(
                    &here.field("nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    why,
                );
            }
            if !items(rule, "apiGroups").is_empty() || !items(rule, "resources").is_empty() {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                faults.invalid(
                    &here.field("nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    why,
                );
            }
            continue;
        }
        if items(rule, "apiGroups").is_empty() {
            faults.required(
                &here.field("apiGroups"),
                "resource rules must supply at least one api group",
            );
        }
        if items(rule, "resources").is_empty() {
            faults.required(
                &here.field("resources"),
                "resource rules must supply at least one resource",
            );
        }
    }
}

pub(super) fn role_binding(binding: &Value, faults: &mut Faults) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let at = At::new("roleRef");
    let role = &binding["roleRef"];
    if text(role, "apiGroup") != GROUP {
        faults.unsupported(&at.field("apiGroup"), text(role, "apiGroup"), &[GROUP]);
    }
    let allowed: &[&str] = if binding["kind"] == "ClusterRoleBinding" {
        &["ClusterRole"]
    } else {
        &["ClusterRole", "Role"]
    };
    if !text(role, "kind").is_empty() && !allowed.contains(&text(role, "kind")) {
        faults.unsupported(&at.field("kind"), text(role, "kind"), allowed);
    }
    let list = At::new("subjects");
    for (index, subject) in items(binding, "subjects").iter().enumerate() {
        let here = list.index(index);
        match (text(subject, "kind"), text(subject, "apiGroup")) {
            ("ServiceAccount", group) => {
                if !group.is_empty() {
                    faults.unsupported(&here.field("apiGroup"), group, &[""]);
                }
                if text(subject, "namespace").is_empty() && binding["kind"] == "ClusterRoleBinding"
                {
                    faults.required(&here.field("namespace"), "");
                }
            }
            ("User" | "Group", group) if group != GROUP => {
                faults.unsupported(&here.field("apiGroup"), group, &[GROUP]);
            }
            ("User" | "Group" | "", _) => {}
            (other, _) => {
                faults.unsupported(&here.field("kind"), other, &["ServiceAccount", "User", "Group"])
            }
        }
    }
}

pub(super) fn lease(lease: &Value, faults: &mut Faults) {
    let spec = &lease["spec"];
    let at = At::new("spec");
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|s| *s <= 0) {
        faults.invalid(&at.field("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    faults.not_negative(spec, "leaseTransitions", &at);
}

pub(super) fn priority_class(class: &Value, faults: &mut Faults) {
    let name = text(&class["metadata"], "name");
    let is_system = matches!(name, "system-node-critical" | "system-cluster-critical");
    if name.starts_with("system-") && !is_system {
        let why = "priority class names with 'system-' prefix are reserved for system use only. error: only system-node-critical and system-cluster-critical are known";
        faults.forbidden(&At::new("metadata.name"), why);
    }
    let value = int(class, "value").unwrap_or_default();
    if value > USER_PRIORITY_MAX && !is_system {
        let why =
            format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        faults.forbidden(&At::new("value"), &why);
    }
}

pub(super) fn webhooks(configuration: &Value, faults: &mut Faults) {
    let list = At::new("webhooks");
    let mut seen = std::collections::HashSet::new();
    for (index, webhook) in items(configuration, "webhooks").iter().enumerate() {
        let here = list.index(index);
        let name = text(webhook, "name");
        if !name.is_empty() {
            if name.split('.').count() < 3 {
                let why = "should be a domain with at least three segments separated by dots";
                faults.invalid(&here.field("name"), name, why);
            }
            if !seen.insert(name) {
                faults.duplicate(&here.field("name"), name);
            }
        }
        let client = &webhook["clientConfig"];
        if client.get("url").is_some() == client.get("service").is_some() {
            faults
                .required(&here.field("clientConfig"), "exactly one of url or service is required");
        }
        if !text(client, "url").is_empty() && !text(client, "url").starts_with("https://") {
            let place = here.field("clientConfig");
            faults.invalid(
                &place.field("url"),
                text(client, "url"),
                "'https' is the only allowed URL scheme; desired format: https://host[/path]",
            );
        }
        if let Some(seconds) = int(webhook, "timeoutSeconds").filter(|s| !(1..=30).contains(s)) {
            let why = "the timeout value must be between 1 and 30 seconds";
            faults.invalid(&here.field("timeoutSeconds"), seconds, why);
        }
        if !matches!(text(webhook, "sideEffects"), "None" | "NoneOnDryRun" | "") {
            faults.unsupported(
                &here.field("sideEffects"),
                text(webhook, "sideEffects"),
                &["None", "NoneOnDryRun"],
            );
        }
        if items(webhook, "admissionReviewVersions").is_empty() {
            let why = "must specify one of v1, v1beta1";
            faults.required(&here.field("admissionReviewVersions"), why);
        }
        for selector in ["namespaceSelector", "objectSelector"] {
            if let Some(value) = webhook.get(selector) {
                check_selector(value, &here.field(selector), faults);
            }
        }
    }
}
