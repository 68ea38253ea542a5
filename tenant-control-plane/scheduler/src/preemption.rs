//! Preemption: which less important pods would have to go so that a pod fits. Pure.
//!
//! Source: Kubernetes documentation, "Pod Priority and Preemption". PodDisruptionBudgets are not
//! looked at here; the eviction itself is a plain deletion, as upstream.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cluster::Cluster;
use crate::cycle::{NoFit, admits, filters};
use crate::pod::PodInfo;

/// A node, and the pods that would have to leave it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name of the node.
    pub node: String,
    /// Pods to evict, most important first.
    pub victims: Vec<Arc<PodInfo>>,
}

/// What users read while pods are leaving for the pod already.
pub const MAKING_ROOM: &str =
    " preemption: not eligible due to a terminating pod on the nominated node.";

/// Most nodes that are tried.
const LIMIT: usize = 100;

/// The best node to make room on, or why there is none (a reason per node).
///
/// # Errors
/// The reason of each node, for the message that users read.
pub fn preempt(
    pod: &PodInfo,
    cluster: &Cluster,
    failure: &NoFit,
) -> Result<Candidate, BTreeMap<String, &'static str>> {
    let mut reasons = BTreeMap::new();
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        for node in failure.rejections.keys() {
            reasons.insert(node.clone(), "Preemption is not helpful for scheduling");
        }
        return Err(reasons);
    }
    let mut candidates = Vec::new();
    let mut trial = cluster.clone();
    for (node, rejection) in &failure.rejections {
        if !rejection.curable {
            reasons.insert(node.clone(), "Preemption is not helpful for scheduling");
        } else if candidates.len() < LIMIT {
            match victims_on(pod, &mut trial, node) {
                Some(victims) => candidates.push(Candidate { node: node.clone(), victims }),
                None => {
                    reasons.insert(node.clone(), "No preemption victims found for incoming pod");
                }
            }
        }
    }
    candidates.into_iter().min_by_key(cost).ok_or(reasons)
}

fn fits(pod: &PodInfo, cluster: &Cluster, node: &str) -> bool {
    let filters = filters(pod, cluster);
    cluster.node(node).is_some_and(|node| admits(&filters, pod, cluster, node).is_ok())
}

/// The fewest, least important pods whose leaving lets the pod in. Leaves `trial` as it was.
fn victims_on(pod: &PodInfo, trial: &mut Cluster, node: &str) -> Option<Vec<Arc<PodInfo>>> {
    let mut lesser: Vec<_> = trial
        .node(node)?
        .pods
        .values()
        .filter(|other| other.priority < pod.priority)
        .cloned()
        .collect();
    if lesser.is_empty() {
        return None;
    }
    // Most important first, then longest running: these are spared first.
    lesser.sort_by_key(|other| (std::cmp::Reverse(other.priority), other.created()));
    for other in &lesser {
        trial.remove_pod(&other.uid);
    }
    let mut victims = Vec::new();
    let possible = fits(pod, trial, node);
    for other in &lesser {
        trial.put_pod(other.clone(), node);
        if possible && !fits(pod, trial, node) {
            trial.remove_pod(&other.uid);
            victims.push(other.clone());
        }
    }
    for victim in &victims {
        trial.put_pod(victim.clone(), node);
    }
    (possible && !victims.is_empty()).then_some(victims)
}

/// What a choice costs: the most important victim, their sum, their number, and then how long the
/// most important one has been running.
fn cost(candidate: &Candidate) -> (i32, i64, usize, std::cmp::Reverse<Timestamp>) {
    let victims = &candidate.victims;
    let highest = victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    // Shifted, so that two negative priorities weigh more than one.
    let sum = victims.iter().map(|v| i64::from(v.priority) - i64::from(i32::MIN)).sum();
    let oldest = victims.iter().filter(|v| v.priority == highest).map(|v| v.created()).min();
    (highest, sum, victims.len(), std::cmp::Reverse(oldest.unwrap_or(Timestamp::MIN)))
}

/// The second half of the message that users read.
pub fn message(nodes: usize, reasons: &BTreeMap<String, &'static str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons.values() {
        *counts.entry(reason).or_default() += 1;
    }
    let mut parts: Vec<_> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    parts.sort();
    format!(" preemption: 0/{nodes} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cycle::schedule;
    use crate::testing::{cluster, node, pod};

    fn asking(name: &str, priority: i32, cpu: &str) -> Arc<PodInfo> {
        pod(
            name,
            json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}),
        )
    }

    #[test]
    fn the_fewest_and_least_important_pods_go() {
        let mut cluster =
            cluster(&[node("w1", json!({})), node("w2", json!({})), node("w3", json!({}))]);
        cluster.put_pod(asking("a", 5, "2"), "w1");
        cluster.put_pod(asking("b", 1, "2"), "w1");
        cluster.put_pod(asking("c", 7, "4"), "w2");
        cluster.put_pod(asking("d", 100, "4"), "w3");
        let urgent = asking("urgent", 50, "2");
        let failure = schedule(&urgent, &cluster, 0).unwrap_err();
        let choice = preempt(&urgent, &cluster, &failure).unwrap();
        assert_eq!(choice.node, "w1");
        let names: Vec<_> = choice.victims.iter().map(|victim| victim.name.as_str()).collect();
        assert_eq!(names, ["b"]);
        assert_eq!(cluster.node("w1").unwrap().pods.len(), 2, "nothing was changed");
    }

    #[test]
    fn room_that_is_made_for_one_is_not_promised_to_another() {
        let mut cluster = cluster(&[node("w1", json!({})), node("w2", json!({}))]);
        cluster.put_pod(asking("a", 1, "4"), "w1");
        cluster.put_pod(asking("b", 1, "4"), "w2");
        let mut chosen = Vec::new();
        for name in ["first", "second"] {
            let urgent = asking(name, 50, "3");
            let failure = schedule(&urgent, &cluster, 0).unwrap_err();
            let choice = preempt(&urgent, &cluster, &failure).unwrap();
            let victims = choice.victims.iter().map(|victim| victim.uid.clone()).collect();
            cluster.nominate(urgent, &choice.node, victims, std::time::Instant::now());
            chosen.push(choice.node);
        }
        chosen.sort();
        assert_eq!(chosen, ["w1", "w2"]);
        let third = asking("third", 50, "3");
        let failure = schedule(&third, &cluster, 0).unwrap_err();
        assert!(preempt(&third, &cluster, &failure).is_err());
    }

    #[test]
    fn where_it_cannot_help_it_says_so() {
        let mut cluster =
            cluster(&[node("w1", json!({})), node("w2", json!({"spec": {"unschedulable": true}}))]);
        cluster.put_pod(asking("a", 5, "4"), "w1");
        let meek = asking("meek", 0, "1");
        let failure = schedule(&meek, &cluster, 0).unwrap_err();
        let reasons = preempt(&meek, &cluster, &failure).unwrap_err();
        assert_eq!(
            message(failure.nodes, &reasons),
            " preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, \
             1 Preemption is not helpful for scheduling."
        );
    }
}
