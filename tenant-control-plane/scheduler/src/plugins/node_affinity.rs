//! NodeAffinity: `spec.nodeSelector`, required and preferred node affinity.

use component::placement::{required_node_affinity, term_matches};

use super::{Events, Filter, Plugin, Rejection, normalize};
use crate::cluster::{Cluster, NodeInfo};
use crate::pod::PodInfo;

/// See the module documentation.
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn helped_by(&self) -> Events {
        Events::NODE_ADDED.or(Events::NODE_LABELS)
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        let spec = pod.spec();
        let required = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            required.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        if spec.node_selector.is_none() && required.is_none() {
            return None;
        }
        Some(Box::new(|node| match required_node_affinity(spec, &node.name, &node.labels) {
            true => Ok(()),
            false => Err(Rejection::incurable("node(s) didn't match Pod's node affinity/selector")),
        }))
    }

    fn score(&self, pod: &PodInfo, _cluster: &Cluster, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let affinity = pod.spec().affinity.as_ref()?.node_affinity.as_ref()?;
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_ref()?;
        let sum = |node: &&NodeInfo| {
            let matching = preferred
                .iter()
                .filter(|term| term_matches(&term.preference, &node.name, &node.labels));
            matching.map(|term| i64::from(term.weight)).sum()
        };
        let mut scores: Vec<i64> = nodes.iter().map(sum).collect();
        normalize(&mut scores, false);
        Some(scores)
    }

    fn weight(&self) -> i64 {
        2
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    #[test]
    fn required_affinity_rules_out_and_preferred_ranks() {
        let cluster = cluster(&[
            node("a", json!({"metadata": {"labels": {"zone": "a"}}})),
            node("b", json!({"metadata": {"labels": {"zone": "b"}}})),
        ]);
        let only_a = pod("p", json!({"nodeSelector": {"zone": "a"}}));
        let check = NodeAffinity.filter(&only_a, &cluster).unwrap();
        assert!(check(cluster.node("a").unwrap()).is_ok());
        assert!(check(cluster.node("b").unwrap()).is_err());
        let rather_b = pod(
            "q",
            json!({"affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference":
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}}]}}}),
        );
        assert!(NodeAffinity.filter(&rather_b, &cluster).is_none());
        let nodes: Vec<_> = cluster.nodes().collect();
        assert_eq!(NodeAffinity.score(&rather_b, &cluster, &nodes).unwrap(), [0, 100]);
    }
}
