//! Whether a node lives. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::condition;
use crate::config::NodeMonitor;

/// What was last seen of a node.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    uid: Option<String>,
    heartbeat: Option<Timestamp>,
    renewed: Option<Timestamp>,
    /// Local time of the last change.
    changed: Instant,
}

#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Heard of within the grace period; if nothing more is heard, look again then.
    Alive { look_again: Duration },
    /// Not heard of for too long.
    Silent,
}

/// Conditions that nobody vouches for once the kubelet is silent.
const OBSERVED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Compares the node with what was seen before, and remembers what is seen now.
pub(super) fn judge(
    probes: &mut HashMap<String, Probe>,
    node: &Node,
    lease: Option<&Lease>,
    timing: &NodeMonitor,
    now: Instant,
) -> Verdict {
    let name = node.metadata.name.clone().unwrap_or_default();
    let ready = condition(node, "Ready");
    let seen = Probe {
        uid: node.metadata.uid.clone(),
        heartbeat: ready.and_then(|c| c.last_heartbeat_time.as_ref()).map(|time| time.0),
        renewed: lease
            .and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref())
            .map(|time| time.0),
        changed: now,
    };
    // This controller's own marking is not a sign of life.
    let own_marking = ready.is_some_and(|c| {
        matches!(c.reason.as_deref(), Some("NodeStatusUnknown" | "NodeStatusNeverUpdated"))
    });
    let probe = probes.entry(name).or_insert_with(|| seen.clone());
    let heartbeat = seen.heartbeat != probe.heartbeat && !own_marking;
    if probe.uid != seen.uid || heartbeat || seen.renewed != probe.renewed {
        *probe = seen;
    }
    let grace = if ready.is_some() { timing.grace } else { timing.startup_grace };
    let silent_for = now.saturating_duration_since(probe.changed);
    if silent_for >= grace {
        return Verdict::Silent;
    }
    // Conditions that are Unknown already stay so until the kubelet itself writes them again.
    Verdict::Alive { look_again: grace - silent_for + Duration::from_millis(10) }
}

/// The node with its conditions set to Unknown, or `None` when they are already.
pub(super) fn mark_unknown(node: &Node, now: Timestamp) -> Option<Node> {
    let mut marked = node.clone();
    let conditions = marked.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut changed = false;
    for kind in OBSERVED {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: kind.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusNeverUpdated".to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(Time(now)),
                });
                changed = true;
            }
        }
    }
    changed.then_some(marked)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn timing() -> NodeMonitor {
        NodeMonitor {
            period: Duration::from_secs(5),
            grace: Duration::from_secs(50),
            startup_grace: Duration::from_secs(60),
        }
    }

    fn node(heartbeat: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "w1", "uid": "1"},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": heartbeat}]}
        }))
        .unwrap()
    }

    fn lease(renewed: &str) -> Lease {
        serde_json::from_value(json!({"spec": {"renewTime": renewed}})).unwrap()
    }

    #[test]
    fn either_a_lease_or_a_status_keeps_a_node_alive() {
        let (mut probes, start) = (HashMap::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = node("2026-01-01T00:00:00Z");
        let held = lease("2026-01-01T00:00:00.000000Z");
        let mut judge = |node: &Node, lease: &Lease, now| {
            matches!(
                super::judge(&mut probes, node, Some(lease), &timing(), now),
                Verdict::Alive { .. }
            )
        };
        assert!(judge(&first, &held, at(0)));
        assert!(judge(&first, &held, at(49)));
        assert!(!judge(&first, &held, at(50)));
        let renewed = lease("2026-01-01T00:00:10.000000Z");
        assert!(judge(&first, &renewed, at(51)), "the lease moved");
        assert!(!judge(&first, &renewed, at(101)));
        assert!(judge(&node("2026-01-01T00:01:00Z"), &renewed, at(102)), "the status moved");
    }

    #[test]
    fn a_node_that_never_reported_has_more_time() {
        let (mut probes, start) = (HashMap::new(), Instant::now());
        let fresh: Node = serde_json::from_value(json!({"metadata": {"name": "w1"}})).unwrap();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_ne!(judge(&mut probes, &fresh, None, &timing(), at(0)), Verdict::Silent);
        assert_ne!(judge(&mut probes, &fresh, None, &timing(), at(59)), Verdict::Silent);
        assert_eq!(judge(&mut probes, &fresh, None, &timing(), at(60)), Verdict::Silent);
    }

    #[test]
    fn marking_is_done_once_and_is_no_sign_of_life() {
        let now = Timestamp::now();
        let marked = mark_unknown(&node("2026-01-01T00:00:00Z"), now).unwrap();
        assert_eq!(super::super::readiness(&marked), "Unknown");
        assert_eq!(marked.status.as_ref().unwrap().conditions.as_ref().unwrap().len(), 4);
        assert!(mark_unknown(&marked, now).is_none());
    }
}
