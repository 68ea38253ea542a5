//! Labels and selectors.

use machinery::{LabelSelector, names};
use serde_json::Value;

use super::faults::{entries, items, text};
use super::{At, Faults};

/// Checks keys and values of a map of labels.
pub(super) fn check_labels(object: &Value, name: &str, at: &At<'_>, faults: &mut Faults) {
    let here = at.field(name);
    for (key, value) in entries(object, name) {
        faults.text(&here, key, names::qualified_name);
        if let Some(value) = value.as_str() {
            faults.text(&here, value, names::label_value);
        }
    }
}

/// Checks a `LabelSelector`.
pub(super) fn check_selector(selector: &Value, at: &At<'_>, faults: &mut Faults) {
    check_labels(selector, "matchLabels", at, faults);
    for (index, expression) in items(selector, "matchExpressions").iter().enumerate() {
        let list = at.field("matchExpressions");
        let here = list.index(index);
        let values = items(expression, "values");
        match text(expression, "operator") {
            "In" | "NotIn" => {
                if values.is_empty() {
                    let why = "must be specified when `operator` is 'In' or 'NotIn'";
                    faults.required(&here.field("values"), why);
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    faults.forbidden(&here.field("values"), why);
                }
            }
            other => {
                faults.invalid(&here.field("operator"), other, "not a valid selector operator")
            }
        }
        faults.text(&here.field("key"), text(expression, "key"), names::qualified_name);
        for (at, value) in values.iter().enumerate() {
            let list = here.field("values");
            let place = list.index(at);
            faults.text(&place, value.as_str().unwrap_or_default(), names::label_value);
        }
    }
}

/// True when the selector names nothing, and so would match everything.
pub(super) fn is_empty(selector: &Value) -> bool {
    entries(selector, "matchLabels").next().is_none()
        && items(selector, "matchExpressions").is_empty()
}

/// Checks that a workload selects the pods of its own template.
pub(super) fn check_selects_template(spec: &Value, faults: &mut Faults) {
    let at = At::new("spec");
    let Some(selector) = spec.get("selector") else {
        faults.required(&at.field("selector"), "");
        return;
    };
    check_selector(selector, &at.field("selector"), faults);
    if is_empty(selector) {
        faults.invalid(
            &at.field("selector"),
            selector.clone(),
            "empty selector is invalid for deployment",
        );
        return;
    }
    let none = Value::Null;
    let labels = spec.pointer("/template/metadata/labels").unwrap_or(&none);
    if LabelSelector::from_json(selector).is_ok_and(|s| !s.matches_labels(labels)) {
        let template = at.field("template");
        let metadata = template.field("metadata");
        let why = "`selector` does not match template `labels`";
        faults.invalid(&metadata.field("labels"), labels_or_empty(labels), why);
    }
}

fn labels_or_empty(labels: &Value) -> Value {
    if labels.is_null() { Value::Object(serde_json::Map::new()) } else { labels.clone() }
}
