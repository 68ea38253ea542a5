//! Where a pod may run: tolerations, affinity, topology spread.

use machinery::names;
use serde_json::Value;

use super::super::faults::{int, items, text};
use super::super::labels::check_selector;
use super::super::{At, Faults};

const REQUIRED_NOW: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED_NOW: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn check(spec: &Value, at: &At<'_>, faults: &mut Faults) {
    let list = at.field("tolerations");
    for (index, toleration) in items(spec, "tolerations").iter().enumerate() {
        self::toleration(toleration, &list.index(index), faults);
    }
    let list = at.field("topologySpreadConstraints");
    for (index, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let here = list.index(index);
        if let Some(skew) = int(constraint, "maxSkew").filter(|s| *s <= 0) {
            faults.invalid(&here.field("maxSkew"), skew, "must be greater than zero");
        }
        if let Some(selector) = constraint.get("labelSelector") {
            check_selector(selector, &here.field("labelSelector"), faults);
        }
    }
    let Some(affinity) = spec.get("affinity") else { return };
    let here = at.field("affinity");
    if let Some(node) = affinity.get("nodeAffinity") {
        node_affinity(node, &here.field("nodeAffinity"), faults);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        if let Some(terms) = affinity.get(kind) {
            pod_affinity(terms, &here.field(kind), faults);
        }
    }
}

fn toleration(toleration: &Value, at: &At<'_>, faults: &mut Faults) {
    let key = text(toleration, "key");
    if !key.is_empty() {
        faults.text(&at.field("key"), key, names::qualified_name);
    }
    let operator = text(toleration, "operator");
    if key.is_empty() && operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        faults.invalid(&at.field("operator"), operator, why);
    }
    if toleration.get("tolerationSeconds").is_some() && text(toleration, "effect") != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        faults.invalid(&at.field("effect"), text(toleration, "effect"), why);
    }
    match operator {
        "Exists" if !text(toleration, "value").is_empty() => {
            let why = "value must be empty when `operator` is 'Exists'";
            faults.invalid(&at.field("operator"), toleration.clone(), why);
        }
        "Equal" | "" => {
            faults.text(&at.field("value"), text(toleration, "value"), names::label_value)
        }
        _ => {}
    }
}

fn node_affinity(affinity: &Value, at: &At<'_>, faults: &mut Faults) {
    if let Some(required) = affinity.get(REQUIRED_NOW) {
        let here = at.field(REQUIRED_NOW);
        let list = here.field("nodeSelectorTerms");
        if items(required, "nodeSelectorTerms").is_empty() {
            faults.required(&list, "must have at least one node selector term");
        }
        for (index, term) in items(required, "nodeSelectorTerms").iter().enumerate() {
            node_term(term, &list.index(index), faults);
        }
    }
    let list = at.field(PREFERRED_NOW);
    for (index, term) in items(affinity, PREFERRED_NOW).iter().enumerate() {
        let here = list.index(index);
        weight(term, &here, faults);
        if let Some(preference) = term.get("preference") {
            node_term(preference, &here.field("preference"), faults);
        }
    }
}

fn weight(term: &Value, at: &At<'_>, faults: &mut Faults) {
    if let Some(weight) = int(term, "weight").filter(|w| !(1..=100).contains(w)) {
        faults.invalid(&at.field("weight"), weight, "must be in the range 1-100");
    }
}

fn node_term(term: &Value, at: &At<'_>, faults: &mut Faults) {
    let list = at.field("matchExpressions");
    for (index, expression) in items(term, "matchExpressions").iter().enumerate() {
        let here = list.index(index);
        let values = items(expression, "values");
        let place = here.field("values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                faults.required(&place, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                faults.forbidden(
                    &place,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "Gt" | "Lt" if values.len() != 1 => {
                faults.required(
                    &place,
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                );
            }
            _ => {}
        }
        if !text(expression, "key").is_empty() {
            faults.text(&here.field("key"), text(expression, "key"), names::qualified_name);
        }
    }
}

fn pod_affinity(affinity: &Value, at: &At<'_>, faults: &mut Faults) {
    let list = at.field(REQUIRED_NOW);
    for (index, term) in items(affinity, REQUIRED_NOW).iter().enumerate() {
        pod_term(term, &list.index(index), faults);
    }
    let list = at.field(PREFERRED_NOW);
    for (index, weighted) in items(affinity, PREFERRED_NOW).iter().enumerate() {
        let here = list.index(index);
        weight(weighted, &here, faults);
        pod_term(&weighted["podAffinityTerm"], &here.field("podAffinityTerm"), faults);
    }
}

fn pod_term(term: &Value, at: &At<'_>, faults: &mut Faults) {
    if text(term, "topologyKey").is_empty() {
        faults.required(&at.field("topologyKey"), "can not be empty");
    } else {
        faults.text(&at.field("topologyKey"), text(term, "topologyKey"), names::qualified_name);
    }
    for name in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.get(name) {
            check_selector(selector, &at.field(name), faults);
        }
    }
}
