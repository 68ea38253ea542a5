//! Webhook configurations: their match conditions must compile, their rules select something, and
//! they must speak a version of the review.

use machinery::Cause;
use serde_json::Value;

use super::{Strategy, cause};
use crate::hooks::conditions::{self, WEBHOOK};

/// Operations that a rule may name.
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// MutatingWebhookConfiguration and ValidatingWebhookConfiguration.
pub fn configuration() -> Strategy {
    Strategy { generation: true, check, ..Strategy::default() }
}

fn check(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let webhooks = |v: &Value| v["webhooks"].as_array().cloned().unwrap_or_default();
    let known = old.map(webhooks).unwrap_or_default();
    let mut causes = Vec::new();
    for (index, webhook) in webhooks(new).iter().enumerate() {
        let at = |key: &str| format!("webhooks[{index}].{key}");
        // What was stored before stays valid.
        let is_new = |key: &str| known.get(index).is_none_or(|old| old[key] != webhook[key]);
        let versions = &webhook["admissionReviewVersions"];
        if is_new("admissionReviewVersions") && !speaks(versions) {
            let text =
                format!("Invalid value: {versions}: must include at least one of v1, v1beta1");
            causes.push(cause("FieldValueInvalid", &at("admissionReviewVersions"), text));
        }
        if is_new("rules") {
            causes.extend(rule_faults(&webhook["rules"], &at("rules")));
        }
        if is_new("matchConditions") {
            let list = &webhook["matchConditions"];
            causes.extend(conditions::faults(list, &at("matchConditions"), &WEBHOOK));
        }
    }
    causes
}

/// True also for no versions at all, which is a fault of its own.
fn speaks(versions: &Value) -> bool {
    let versions = versions.as_array().map_or(&[][..], Vec::as_slice);
    versions.is_empty() || versions.iter().any(|version| *version == "v1" || *version == "v1beta1")
}

/// What is wrong with a list of rules.
pub(super) fn rule_faults(rules: &Value, at: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, rule) in rules.as_array().into_iter().flatten().enumerate() {
        let parts = [
            ("operations", "*", "operations"),
            ("apiGroups", "*", "API groups"),
            ("apiVersions", "*", "API versions"),
            ("resources", "*/*", "resources"),
        ];
        for (key, all, name) in parts {
            let place = format!("{at}[{index}].{key}");
            let items = rule[key].as_array().map_or(&[][..], Vec::as_slice);
            if items.is_empty() {
                causes.push(cause("FieldValueRequired", &place, "Required value"));
            }
            if items.len() > 1 && items.iter().any(|item| item == all) {
                let text = format!(
                    "Invalid value: {}: if '{all}' is present, must not specify other {name}",
                    rule[key]
                );
                causes.push(cause("FieldValueInvalid", &place, text));
            }
            for (i, item) in items.iter().enumerate() {
                causes.extend(item_fault(key, item, &format!("{place}[{i}]")));
            }
        }
    }
    causes
}

fn item_fault(key: &str, item: &Value, at: &str) -> Option<Cause> {
    let item = item.as_str().unwrap_or_default();
    match key {
        "operations" if !OPERATIONS.contains(&item) => {
            let known = OPERATIONS.map(|name| format!("{name:?}")).join(", ");
            let text = format!("Unsupported value: {item:?}: supported values: {known}");
            Some(cause("FieldValueNotSupported", at, text))
        }
        "apiVersions" | "resources" if item.is_empty() => {
            Some(cause("FieldValueRequired", at, "Required value"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(causes: &[Cause]) -> Vec<(&str, &str)> {
        causes.iter().map(|c| (c.reason.as_str(), c.field.as_str())).collect()
    }

    #[test]
    fn a_rule_names_what_it_selects() {
        let good = json!({"operations": ["CREATE", "DELETE"], "apiGroups": ["", "apps"],
            "apiVersions": ["*"], "resources": ["pods", "pods/*"]});
        assert_eq!(rule_faults(&json!([good]), "r"), []);
        let bad = json!([{"operations": ["*", "READ"], "apiVersions": [""], "resources": []}]);
        assert_eq!(
            fields(&rule_faults(&bad, "r")),
            [
                ("FieldValueInvalid", "r[0].operations"),
                ("FieldValueNotSupported", "r[0].operations[1]"),
                ("FieldValueRequired", "r[0].apiGroups"),
                ("FieldValueRequired", "r[0].apiVersions[0]"),
                ("FieldValueRequired", "r[0].resources"),
            ]
        );
    }

    #[test]
    fn a_webhook_speaks_a_known_version_unless_it_was_stored_without() {
        let of = |versions: Value| json!({"webhooks": [{"admissionReviewVersions": versions}]});
        let odd = of(json!(["v2"]));
        let at = "webhooks[0].admissionReviewVersions";
        assert_eq!(fields(&check(&odd, None)), [("FieldValueInvalid", at)]);
        assert_eq!(check(&odd, Some(&odd)), []);
        assert_eq!(check(&of(json!(["v2", "v1"])), None), []);
    }
}
