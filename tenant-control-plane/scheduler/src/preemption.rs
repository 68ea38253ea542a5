//! Preemption: which less important pods would have to go so that a pod fits. Pure.
//!
//! Source: Kubernetes documentation, "Pod Priority and Preemption". PodDisruptionBudgets are kept
//! where there is a choice, and broken where there is none; the eviction itself is a plain deletion,
//! as upstream.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::budget;
use crate::cluster::Cluster;
use crate::cycle::{NoFit, admits, filters};
use crate::pod::PodInfo;

/// A node, and the pods that would have to leave it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name of the node.
    pub node: String,
    /// Pods to evict.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them break a PodDisruptionBudget.
    pub violations: usize,
}

/// What users read while pods are leaving for the pod already.
pub const MAKING_ROOM: &str =
    " preemption: not eligible due to a terminating pod on the nominated node.";

/// Candidates among which the choice is made.
const LIMIT: usize = 100;

/// Why nodes cannot be made to fit, and how many there are of each kind.
pub type Reasons = BTreeMap<&'static str, usize>;

/// True when the pod may make others leave.
pub fn is_allowed(pod: &PodInfo) -> bool {
    pod.spec().preemption_policy.as_deref() != Some("Never")
}

/// The best node to make room on, or why there is none. Pods are taken out of `cluster` and put
/// back. `turn` says with which node the search begins: counting it up shares them out.
///
/// # Errors
/// The nodes by reason, for the message that users read.
pub fn preempt(
    pod: &PodInfo,
    cluster: &mut Cluster,
    failure: &NoFit,
    turn: usize,
) -> Result<Candidate, Reasons> {
    const NO_HELP: &str = "Preemption is not helpful for scheduling";
    let nodes = failure.rejections.len();
    if !is_allowed(pod) {
        return Err(BTreeMap::from([(NO_HELP, nodes)]));
    }
    let mut reasons = Reasons::new();
    let mut candidates = Vec::new();
    let start = turn.wrapping_mul(LIMIT) % nodes.max(1);
    for (node, rejection) in failure.rejections.iter().cycle().skip(start).take(nodes) {
        if !rejection.curable {
            *reasons.entry(NO_HELP).or_default() += 1;
            continue;
        }
        match victims_on(pod, cluster, node) {
            Some(candidate) => candidates.push(candidate),
            None => {
                *reasons.entry("No preemption victims found for incoming pod").or_default() += 1;
            }
        }
        // If all so far break budgets, one that breaks none is worth the search.
        if candidates.len() >= LIMIT && candidates.iter().any(|found| found.violations == 0) {
            break;
        }
    }
    candidates.into_iter().min_by_key(cost).ok_or(reasons)
}

fn fits(pod: &PodInfo, cluster: &Cluster, node: &str) -> bool {
    let filters = filters(pod, cluster);
    cluster.node(node).is_some_and(|node| admits(&filters, pod, cluster, node).is_ok())
}

/// The fewest, least important pods whose leaving lets the pod in, and as few as possible that break
/// a budget. Leaves `cluster` as it was.
fn victims_on(pod: &PodInfo, cluster: &mut Cluster, node: &str) -> Option<Candidate> {
    let mut lesser: Vec<_> = cluster
        .node(node)?
        .pods
        .values()
        .filter(|other| other.priority < pod.priority)
        .cloned()
        .collect();
    if lesser.is_empty() {
        return None;
    }
    // Most important first, then longest running: these are spared first, and before them all that
    // would break a budget.
    lesser.sort_by(|a, b| {
        let rank = |pod: &PodInfo| (std::cmp::Reverse(pod.priority), pod.created());
        rank(a).cmp(&rank(b)).then_with(|| a.uid.cmp(&b.uid))
    });
    let breaking = budget::breaking(&cluster.budgets, &lesser);
    lesser.sort_by_key(|other| !breaking.contains(&other.uid));
    for other in &lesser {
        cluster.remove_pod(&other.uid);
    }
    let mut victims = Vec::new();
    let possible = fits(pod, cluster, node);
    for other in &lesser {
        cluster.put_pod(other.clone(), node);
        if possible && !fits(pod, cluster, node) {
            cluster.remove_pod(&other.uid);
            victims.push(other.clone());
        }
    }
    for victim in &victims {
        cluster.put_pod(victim.clone(), node);
    }
    let violations = victims.iter().filter(|victim| breaking.contains(&victim.uid)).count();
    (possible && !victims.is_empty()).then(|| Candidate {
        node: node.to_owned(),
        victims,
        violations,
    })
}

/// What a choice costs: the budgets that it breaks, the most important victim, their sum, their number, and then how long the
/// most important one has been running.
fn cost(candidate: &Candidate) -> (usize, i32, i64, usize, std::cmp::Reverse<Timestamp>) {
    let victims = &candidate.victims;
    let highest = victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    // Shifted, so that two negative priorities weigh more than one.
    let sum = victims.iter().map(|v| i64::from(v.priority) - i64::from(i32::MIN)).sum();
    let oldest = victims.iter().filter(|v| v.priority == highest).map(|v| v.created()).min();
    (
        candidate.violations,
        highest,
        sum,
        victims.len(),
        std::cmp::Reverse(oldest.unwrap_or(Timestamp::MIN)),
    )
}

/// The second half of the message that users read.
pub fn message(nodes: usize, reasons: &Reasons) -> String {
    let mut parts: Vec<_> = reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    parts.sort();
    format!(" preemption: 0/{nodes} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::budget::Budget;
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
        let choice = preempt(&urgent, &mut cluster, &failure, 0).unwrap();
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
            let choice = preempt(&urgent, &mut cluster, &failure, 0).unwrap();
            let victims = choice.victims.iter().map(|victim| victim.uid.clone()).collect();
            cluster.nominate(urgent, &choice.node, victims, std::time::Instant::now());
            chosen.push(choice.node);
        }
        chosen.sort();
        assert_eq!(chosen, ["w1", "w2"]);
        let third = asking("third", 50, "3");
        let failure = schedule(&third, &cluster, 0).unwrap_err();
        assert!(preempt(&third, &mut cluster, &failure, 0).is_err());
    }

    #[test]
    fn budgets_are_kept_where_there_is_a_choice() {
        let mut cluster = cluster(&[node("w1", json!({})), node("w2", json!({}))]);
        for (name, node) in [("a", "w1"), ("b", "w1"), ("c", "w2"), ("d", "w2")] {
            cluster.put_pod(asking(name, if name == "d" { 3 } else { 1 }, "2"), node);
        }
        let budget = json!({"spec": {"selector": {"matchLabels": {"app": "web"}}},
            "status": {"disruptionsAllowed": 1, "disruptedPods": {"c": "2026-01-01T00:00:00Z"}}});
        let budget = Budget::of(&serde_json::from_value(budget).unwrap());
        cluster.budgets.entry("ns".into()).or_default().insert("pdb".into(), budget);
        let whole = asking("whole", 50, "4");
        let failure = schedule(&whole, &cluster, 0).unwrap_err();
        let choice = preempt(&whole, &mut cluster, &failure, 0).unwrap();
        assert_eq!(
            (choice.node.as_str(), choice.violations),
            ("w2", 0),
            "in spite of d's priority"
        );
        let half = asking("half", 50, "2");
        cluster.remove_pod("c");
        cluster.remove_pod("d");
        cluster.put_pod(asking("greater", 90, "4"), "w2");
        let failure = schedule(&half, &cluster, 0).unwrap_err();
        let choice = preempt(&half, &mut cluster, &failure, 0).unwrap();
        let names: Vec<_> = choice.victims.iter().map(|victim| victim.name.as_str()).collect();
        assert_eq!((names, choice.violations), (vec!["a"], 0), "b would be one too many");
    }

    #[test]
    fn where_it_cannot_help_it_says_so() {
        let mut cluster =
            cluster(&[node("w1", json!({})), node("w2", json!({"spec": {"unschedulable": true}}))]);
        cluster.put_pod(asking("a", 5, "4"), "w1");
        let meek = asking("meek", 0, "1");
        let failure = schedule(&meek, &cluster, 0).unwrap_err();
        let reasons = preempt(&meek, &mut cluster, &failure, 0).unwrap_err();
        assert_eq!(
            message(failure.nodes, &reasons),
            " preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, \
             1 Preemption is not helpful for scheduling."
        );
    }
}
