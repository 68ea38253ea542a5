//! TaintToleration: tainted nodes take only pods that tolerate the taints, and those with fewer
//! `PreferNoSchedule` taints are better.

use component::placement::{tolerates, untolerated};

use super::{Events, Filter, Plugin, Rejection, normalize};
use crate::cluster::{Cluster, NodeInfo};
use crate::pod::PodInfo;

/// See the module documentation.
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn helped_by(&self) -> Events {
        Events::NODE_ADDED.or(Events::NODE_TAINTS)
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
        Some(Box::new(move |node| {
            match untolerated(&node.taints, tolerations, &["NoSchedule", "NoExecute"]) {
                None => Ok(()),
                Some(taint) => {
                    let value = taint.value.as_deref().unwrap_or_default();
                    let reason =
                        format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
                    Err(Rejection::incurable(reason))
                }
            }
        }))
    }

    fn score(&self, pod: &PodInfo, _cluster: &Cluster, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
        let disliked = |node: &&NodeInfo| {
            let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
            soft.filter(|taint| !tolerations.iter().any(|t| tolerates(t, taint))).count() as i64
        };
        let mut scores: Vec<_> = nodes.iter().map(disliked).collect();
        normalize(&mut scores, true);
        Some(scores)
    }

    fn weight(&self) -> i64 {
        3
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    #[test]
    fn taints_keep_pods_out_unless_tolerated() {
        let cluster = cluster(&[
            node(
                "hard",
                json!({"spec": {"taints": [{"key": "gpu", "value": "a", "effect": "NoSchedule"}]}}),
            ),
            node(
                "soft",
                json!({"spec": {"taints": [{"key": "spot", "effect": "PreferNoSchedule"}]}}),
            ),
            node("free", json!({})),
        ]);
        let plain = pod("p", json!({}));
        let check = TaintToleration.filter(&plain, &cluster).unwrap();
        let rejected = check(cluster.node("hard").unwrap()).unwrap_err();
        assert_eq!(rejected.reasons, ["node(s) had untolerated taint {gpu: a}"]);
        assert!(check(cluster.node("soft").unwrap()).is_ok());
        let nodes = [cluster.node("soft").unwrap(), cluster.node("free").unwrap()];
        assert_eq!(TaintToleration.score(&plain, &cluster, &nodes).unwrap(), [0, 100]);
    }
}
