//! Which taints a node's conditions call for. Pure. Source: Kubernetes documentation, "Taint Nodes by
//! Condition" and "Taint based Evictions".

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{condition, readiness};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, the status that counts as bad, taint key.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

fn is_managed(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        "NoSchedule" => {
            taint.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(.., key)| *key == taint.key)
        }
        "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    }
}

/// All taints that the node should have: others' as they are, and those of its conditions. Without
/// `may_evict`, no taint that evicts is added.
pub(super) fn wanted(node: &Node, may_evict: bool, now: Timestamp) -> Vec<Taint> {
    let current = component::placement::taints(node);
    let mut wanted: Vec<_> = current.iter().filter(|taint| !is_managed(taint)).cloned().collect();
    let mut need = |key: &str, effect: &str| {
        let held = current.iter().find(|taint| taint.key == key && taint.effect == effect);
        wanted.push(held.cloned().unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            value: None,
            time_added: Some(Time(now)),
        }));
    };
    // A node that has no conditions yet keeps the taint that admission gave it.
    if condition(node, "Ready").is_none() && current.iter().any(|taint| taint.key == NOT_READY) {
        need(NOT_READY, "NoSchedule");
    }
    for (kind, bad, key) in BY_CONDITION {
        if condition(node, kind).is_some_and(|condition| condition.status == bad) {
            need(key, "NoSchedule");
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        need(UNSCHEDULABLE, "NoSchedule");
    }
    if may_evict && condition(node, "Ready").is_some() {
        match readiness(node) {
            "False" => need(NOT_READY, "NoExecute"),
            "Unknown" => need(UNREACHABLE, "NoExecute"),
            _ => {}
        }
    }
    wanted
}

/// True when both lists hold the same taints, in whatever order.
pub(super) fn same(a: &[Taint], b: &[Taint]) -> bool {
    a.len() == b.len() && a.iter().all(|taint| b.contains(taint))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(taints: Value, conditions: Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "w1"}, "spec": {"taints": taints}, "status": {"conditions": conditions}
        }))
        .unwrap()
    }

    fn keys(taints: &[Taint]) -> Vec<String> {
        taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    #[test]
    fn taints_follow_conditions() {
        let now = Timestamp::now();
        let ready = node(
            json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
                   {"key": "mine", "effect": "NoExecute"}]),
            json!([{"type": "Ready", "status": "True"}]),
        );
        assert_eq!(keys(&wanted(&ready, true, now)), ["mine:NoExecute"]);
        let lost = node(json!([]), json!([{"type": "Ready", "status": "Unknown"}]));
        assert_eq!(
            keys(&wanted(&lost, true, now)),
            [
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute"
            ]
        );
        assert_eq!(
            keys(&wanted(&lost, false, now)),
            ["node.kubernetes.io/unreachable:NoSchedule"],
            "nobody is ready: nothing is evicted"
        );
    }

    #[test]
    fn a_taint_keeps_the_time_it_was_added() {
        let added = "2026-01-01T00:00:00Z";
        let taint = json!({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": added});
        let lost = node(json!([taint]), json!([{"type": "Ready", "status": "Unknown"}]));
        let wanted = wanted(&lost, true, Timestamp::now());
        let kept = wanted.iter().find(|taint| taint.effect == "NoExecute").unwrap();
        assert_eq!(kept.time_added.as_ref().unwrap().0, added.parse::<Timestamp>().unwrap());
    }

    #[test]
    fn a_new_node_stays_tainted_until_it_reports() {
        let fresh = node(
            json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]),
            json!([]),
        );
        assert_eq!(
            keys(&wanted(&fresh, true, Timestamp::now())),
            ["node.kubernetes.io/not-ready:NoSchedule"]
        );
    }
}
