//! NodeResourcesBalancedAllocation: better a node whose CPU and memory are used to a similar degree.

use super::{MAX_SCORE, Plugin};
use crate::cluster::{Cluster, NodeInfo};
use crate::pod::PodInfo;

/// See the module documentation.
pub struct NodeResourcesBalancedAllocation;

fn used_share(used: i64, total: i64) -> f64 {
    if total <= 0 { 1.0 } else { (used as f64 / total as f64).min(1.0) }
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score(&self, pod: &PodInfo, _cluster: &Cluster, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        // A pod that asks for nothing has no balance to keep.
        if pod.requests.milli_cpu == 0 && pod.requests.memory == 0 {
            return None;
        }
        let score = |node: &&NodeInfo| {
            let cpu = used_share(
                node.requested.milli_cpu + pod.requests.milli_cpu,
                node.allocatable.milli_cpu,
            );
            let memory =
                used_share(node.requested.memory + pod.requests.memory, node.allocatable.memory);
            // The standard deviation of two shares is half their distance.
            let deviation = (cpu - memory).abs() / 2.0;
            ((1.0 - deviation) * MAX_SCORE as f64) as i64
        };
        Some(nodes.iter().map(score).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    #[test]
    fn the_balanced_node_is_better() {
        let asking = |name: &str, cpu: &str, memory: &str| {
            pod(
                name,
                json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}),
            )
        };
        let mut cluster = cluster(&[node("cpu-heavy", json!({})), node("even", json!({}))]);
        cluster.put_pod(asking("x", "2", "0"), "cpu-heavy");
        cluster.put_pod(asking("y", "1", "2Gi"), "even");
        let nodes: Vec<_> = cluster.nodes().collect();
        let pod = asking("p", "1", "2Gi");
        let scores = NodeResourcesBalancedAllocation.score(&pod, &cluster, &nodes).unwrap();
        assert_eq!(scores, [75, 100]);
    }
}
