//! What limits and allows: budgets, quotas, roles, admission and flow control.

use jiff::Timestamp;
use serde_json::Value;

use crate::cell::{self, NONE, UNSET, len_at, list_at, plain_or, str_at};
use crate::{AGE, Column, NAME, number, text, wide};

pub(crate) const BUDGET: &[Column] =
    &[NAME, text("Min Available"), text("Max Unavailable"), number("Allowed Disruptions"), AGE];

pub(crate) fn budget(budget: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(budget),
        plain_or(budget, "/spec/minAvailable", "N/A").into(),
        plain_or(budget, "/spec/maxUnavailable", "N/A").into(),
        cell::number(budget, "/status/disruptionsAllowed"),
        cell::age(budget, now),
    ]
}

pub(crate) const QUOTA: &[Column] = &[NAME, text("Request"), text("Limit"), AGE];

pub(crate) fn quota(quota: &Value, now: Timestamp) -> Vec<Value> {
    let hard = quota.pointer("/status/hard").and_then(Value::as_object);
    let mut names: Vec<&String> = hard.map(|h| h.keys().collect()).unwrap_or_default();
    names.sort();
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for name in names {
        let amount = |of: &str| {
            let amount = quota.pointer(of).and_then(|amounts| amounts.get(name));
            amount
                .map_or("0".to_owned(), |a| a.as_str().map_or_else(|| a.to_string(), str::to_owned))
        };
        let text = format!("{name}: {}/{}", amount("/status/used"), amount("/status/hard"));
        if name.starts_with("limits") { limits.push(text) } else { requests.push(text) }
    }
    vec![
        cell::name(quota),
        requests.join(", ").into(),
        limits.join(", ").into(),
        cell::age(quota, now),
    ]
}

pub(crate) const BINDING: &[Column] =
    &[NAME, text("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")];

pub(crate) fn binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| -> Value {
        let names: Vec<String> = list_at(binding, "/subjects")
            .iter()
            .filter(|subject| subject["kind"] == kind)
            .map(|subject| match (kind, str_at(subject, "/name")) {
                ("ServiceAccount", name) => format!("{}/{name}", str_at(subject, "/namespace")),
                (_, name) => name.to_owned(),
            })
            .collect();
        names.join(", ").into()
    };
    let role = format!("{}/{}", str_at(binding, "/roleRef/kind"), str_at(binding, "/roleRef/name"));
    vec![
        cell::name(binding),
        role.into(),
        cell::age(binding, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

pub(crate) const WEBHOOKS: &[Column] = &[NAME, number("Webhooks"), AGE];

pub(crate) fn webhooks(configuration: &Value, now: Timestamp) -> Vec<Value> {
    let count = len_at(configuration, "/webhooks");
    vec![cell::name(configuration), count.into(), cell::age(configuration, now)]
}

fn parameter_kind(policy: &Value) -> Value {
    match policy.pointer("/spec/paramKind") {
        Some(kind) => format!("{}/{}", str_at(kind, "/apiVersion"), str_at(kind, "/kind")).into(),
        None => UNSET.into(),
    }
}

pub(crate) const VALIDATING: &[Column] = &[NAME, number("Validations"), text("ParamKind"), AGE];

pub(crate) fn validating(policy: &Value, now: Timestamp) -> Vec<Value> {
    let count = len_at(policy, "/spec/validations");
    vec![cell::name(policy), count.into(), parameter_kind(policy), cell::age(policy, now)]
}

pub(crate) const MUTATING: &[Column] = &[NAME, number("Mutations"), text("ParamKind"), AGE];

pub(crate) fn mutating(policy: &Value, now: Timestamp) -> Vec<Value> {
    let count = len_at(policy, "/spec/mutations");
    vec![cell::name(policy), count.into(), parameter_kind(policy), cell::age(policy, now)]
}

pub(crate) const POLICY_BINDING: &[Column] = &[NAME, text("PolicyName"), text("ParamRef"), AGE];

pub(crate) fn policy_binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let parameter = binding.pointer("/spec/paramRef").map(|reference| {
        match (str_at(reference, "/namespace"), str_at(reference, "/name")) {
            (_, "") => cell::selector(reference, "/selector"),
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        }
    });
    vec![
        cell::name(binding),
        cell::text(binding, "/spec/policyName"),
        parameter.unwrap_or_else(|| UNSET.to_owned()).into(),
        cell::age(binding, now),
    ]
}

pub(crate) const FLOW: &[Column] = &[
    NAME,
    text("PriorityLevel"),
    number("MatchingPrecedence"),
    text("DistinguisherMethod"),
    AGE,
    text("MissingPL"),
];

pub(crate) fn flow(schema: &Value, now: Timestamp) -> Vec<Value> {
    let missing = cell::condition(schema, "Dangling").map_or("?", |c| str_at(c, "/status"));
    vec![
        cell::name(schema),
        cell::text(schema, "/spec/priorityLevelConfiguration/name"),
        cell::number(schema, "/spec/matchingPrecedence"),
        cell::text_or(schema, "/spec/distinguisherMethod/type", NONE),
        cell::age(schema, now),
        missing.into(),
    ]
}

pub(crate) const LEVEL: &[Column] = &[
    NAME,
    text("Type"),
    text("NominalConcurrencyShares"),
    text("Queues"),
    text("HandSize"),
    text("QueueLengthLimit"),
    AGE,
];

pub(crate) fn level(level: &Value, now: Timestamp) -> Vec<Value> {
    let queuing = |name: &str| -> Value {
        plain_or(level, &format!("/spec/limited/limitResponse/queuing/{name}"), NONE).into()
    };
    let of = if level.pointer("/spec/exempt").is_some() { "exempt" } else { "limited" };
    vec![
        cell::name(level),
        cell::text(level, "/spec/type"),
        plain_or(level, &format!("/spec/{of}/nominalConcurrencyShares"), NONE).into(),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        cell::age(level, now),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quota_shows_use_against_its_bounds() {
        let object =
            json!({"status": {"hard": {"pods": "10", "limits.cpu": "2"}, "used": {"pods": "3"}}});
        let row = quota(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..3], [json!("pods: 3/10"), json!("limits.cpu: 0/2")]);
    }
}
