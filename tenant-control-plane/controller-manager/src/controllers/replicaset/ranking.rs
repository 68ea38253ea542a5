//! Which pods go first when a ReplicaSet has too many.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pods;

/// Annotation by which users prefer pods: the lower, the sooner deleted.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST));
    cost.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Ages are compared on a logarithmic scale, so that pods of about the same age are picked at
/// random (by uid) rather than strictly the youngest.
fn age_rank(since: Option<Timestamp>, now: Timestamp) -> i64 {
    since.map_or(-1, |since| {
        (now.as_second() - since.as_second())
            .max(0)
            .checked_ilog2()
            .map_or(0, |log| i64::from(log) + 1)
    })
}

/// The pods, those to be deleted first in front: without a node, then pending, then not ready, then
/// cheap, then on nodes that hold more of `related`, then young, then often restarted.
pub fn order_for_deletion(
    active: &[Arc<Pod>],
    related: &[Arc<Pod>],
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *per_node.entry(node(pod)).or_default() += 1;
    }
    let mut ranked: Vec<_> = active.to_vec();
    ranked.sort_by_cached_key(|pod| {
        let phase = match pods::phase(pod) {
            "Running" => 2,
            "Unknown" => 1,
            _ => 0,
        };
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (
            !node(pod).is_empty(),
            phase,
            pods::is_ready(pod),
            deletion_cost(pod),
            Reverse(per_node.get(node(pod)).copied().unwrap_or_default()),
            age_rank(pods::ready_since(pod), now),
            Reverse(pods::restarts(pod)),
            age_rank(created, now),
            pod.metadata.uid.clone(),
        )
    });
    ranked
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: Option<&str>, phase: &str, ready: bool, cost: i32) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "annotations": {DELETION_COST: cost.to_string()}},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": phase, "conditions": [
                    {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
            }))
            .unwrap(),
        )
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let pods = vec![
            pod("serving", Some("a"), "Running", true, 0),
            pod("crowded", Some("b"), "Running", true, 0),
            pod("crowded-2", Some("b"), "Running", true, 5),
            pod("not-ready", Some("a"), "Running", false, 0),
            pod("pending", Some("a"), "Pending", false, 0),
            pod("unscheduled", None, "Pending", false, 0),
        ];
        let ranked = order_for_deletion(&pods, &pods[..3], "2026-02-01T00:00:00Z".parse().unwrap());
        let names: Vec<_> = ranked.iter().map(|p| p.metadata.name.clone().unwrap()).collect();
        assert_eq!(
            names,
            ["unscheduled", "pending", "not-ready", "crowded", "serving", "crowded-2"]
        );
    }
}
