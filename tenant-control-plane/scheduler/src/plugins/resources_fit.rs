//! NodeResourcesFit: what a pod asks for must be free, and nodes with more left are better.

use std::borrow::Cow;

use super::{Events, Filter, MAX_SCORE, Plugin, Rejection};
use crate::cluster::{Cluster, NodeInfo};
use crate::pod::PodInfo;

/// See the module documentation.
pub struct NodeResourcesFit;

/// Something of which a node has too little left.
enum Short<'a> {
    Pods,
    /// A resource, and whether the node as a whole has enough of it.
    Of(&'a str, bool),
}

/// Tells of everything that is short on the node.
fn each_shortage<'a>(pod: &'a PodInfo, node: &NodeInfo, mut tell: impl FnMut(Short<'a>)) {
    if node.pods.len() as i64 + 1 > node.max_pods {
        tell(Short::Pods);
    }
    let mut check = |name: &'a str, asked: i64, used: i64, total: i64| {
        if asked > 0 && asked > total.saturating_sub(used) {
            tell(Short::Of(name, asked <= total));
        }
    };
    let (asked, used, total) = (&pod.requests, &node.requested, &node.allocatable);
    check("cpu", asked.milli_cpu, used.milli_cpu, total.milli_cpu);
    check("memory", asked.memory, used.memory, total.memory);
    check("ephemeral-storage", asked.ephemeral, used.ephemeral, total.ephemeral);
    for (name, amount) in &asked.others {
        let of = |map: &std::collections::BTreeMap<String, i64>| {
            map.get(name).copied().unwrap_or_default()
        };
        check(name, *amount, of(&used.others), of(&total.others));
    }
}

/// True when the node has what the pod asks for.
pub fn has_room(pod: &PodInfo, node: &NodeInfo) -> bool {
    let mut enough = true;
    each_shortage(pod, node, |_| enough = false);
    enough
}

fn shortages(pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let mut curable = true;
    each_shortage(pod, node, |short| match short {
        Short::Pods => reasons.push("Too many pods".into()),
        Short::Of(name, whole_has_enough) => {
            reasons.push(match name {
                "cpu" => "Insufficient cpu".into(),
                "memory" => "Insufficient memory".into(),
                other => format!("Insufficient {other}").into(),
            });
            // More than the node has: emptying it would not help.
            curable &= whole_has_enough;
        }
    });
    (!reasons.is_empty()).then_some(Rejection { reasons, curable })
}

/// The free share of an amount, in percent.
fn free_share(used: i64, total: i64) -> i64 {
    if total <= 0 || used > total { 0 } else { (total - used) * MAX_SCORE / total }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn helped_by(&self) -> Events {
        Events::NODE_ADDED.or(Events::NODE_ALLOCATABLE).or(Events::ROOM)
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        Some(Box::new(|node| shortages(pod, node).map_or(Ok(()), Err)))
    }

    fn score(&self, pod: &PodInfo, _cluster: &Cluster, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let score = |node: &&NodeInfo| {
            let cpu = node.assumed.milli_cpu + pod.assumed.milli_cpu;
            let memory = node.assumed.memory + pod.assumed.memory;
            let total = &node.allocatable;
            (free_share(cpu, total.milli_cpu) + free_share(memory, total.memory)) / 2
        };
        Some(nodes.iter().map(score).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    fn asking(name: &str, cpu: &str, memory: &str) -> std::sync::Arc<PodInfo> {
        pod(
            name,
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}),
        )
    }

    #[test]
    fn every_shortage_is_named() {
        let mut cluster = cluster(&[node("a", json!({"status": {"allocatable": {"pods": "1"}}}))]);
        cluster.put_pod(asking("held", "3", "1Gi"), "a");
        let big = asking("big", "2", "9Gi");
        let rejected = NodeResourcesFit.filter(&big, &cluster).unwrap()(cluster.node("a").unwrap());
        let rejected = rejected.unwrap_err();
        assert_eq!(rejected.reasons, ["Too many pods", "Insufficient cpu", "Insufficient memory"]);
        assert!(!rejected.curable, "9Gi never fit");
        let fits = asking("fits", "2", "1Gi");
        let rejected =
            NodeResourcesFit.filter(&fits, &cluster).unwrap()(cluster.node("a").unwrap());
        assert!(rejected.unwrap_err().curable);
        assert!(!has_room(&fits, cluster.node("a").unwrap()));
        cluster.remove_pod("held");
        assert!(has_room(&fits, cluster.node("a").unwrap()));
        assert!(!has_room(&big, cluster.node("a").unwrap()));
    }

    #[test]
    fn the_emptier_node_is_better() {
        let mut cluster = cluster(&[node("a", json!({})), node("b", json!({}))]);
        cluster.put_pod(asking("held", "2", "4Gi"), "a");
        let nodes: Vec<_> = cluster.nodes().collect();
        let scores = NodeResourcesFit.score(&asking("p", "1", "2Gi"), &cluster, &nodes).unwrap();
        assert_eq!(scores, [25, 75]);
    }
}
