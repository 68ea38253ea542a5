//! One scheduling decision. Pure.

use std::collections::BTreeMap;

use crate::cluster::{Cluster, NodeInfo};
use crate::plugins::{Events, Filter, PLUGINS, Plugin, Rejection};
use crate::pod::PodInfo;

/// Why no node will do.
#[derive(Clone, Debug, Default)]
pub struct NoFit {
    /// Nodes that were looked at.
    pub nodes: usize,
    /// The rejection of each node, by name.
    pub rejections: BTreeMap<String, Rejection>,
    /// Changes that may help.
    pub helped_by: u16,
}

impl NoFit {
    /// As users read it: `0/2 nodes are available: 1 Insufficient cpu, …`.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.rejections.values().flat_map(|rejection| &rejection.reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        let mut parts: Vec<_> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        parts.sort();
        format!("0/{} nodes are available: {}.", self.nodes, parts.join(", "))
    }
}

/// The filters that have something to say about the pod.
pub fn filters<'a>(
    pod: &'a PodInfo,
    cluster: &'a Cluster,
) -> Vec<(&'static dyn Plugin, Filter<'a>)> {
    let filters = PLUGINS.iter().map(|plugin| (*plugin, plugin.filter(pod, cluster)));
    filters.filter_map(|(plugin, filter)| Some((plugin, filter?))).collect()
}

/// The first rejection of a node.
fn check(filters: &[(&'static dyn Plugin, Filter<'_>)], node: &NodeInfo) -> Result<(), Rejection> {
    filters.iter().try_for_each(|(_, filter)| filter(node))
}

/// Whether a node takes the pod: room that is made for a pod as important is taken, although
/// nothing runs there yet.
pub fn admits(
    filters: &[(&'static dyn Plugin, Filter<'_>)],
    pod: &PodInfo,
    cluster: &Cluster,
    node: &NodeInfo,
) -> Result<(), Rejection> {
    check(filters, node)?;
    match cluster.with_nominated(node, pod) {
        Some(full) => check(filters, &full),
        None => Ok(()),
    }
}

/// The best node for the pod, or the one where room was made for it. `turn` decides between equals: counting it up shares them out.
///
/// # Errors
/// Why each node was rejected.
pub fn schedule(pod: &PodInfo, cluster: &Cluster, turn: usize) -> Result<String, NoFit> {
    let filters = filters(pod, cluster);
    if let Some(node) = cluster.nominated_node(&pod.uid).and_then(|name| cluster.node(name))
        && admits(&filters, pod, cluster, node).is_ok()
    {
        return Ok(node.name.clone());
    }
    let (mut feasible, mut failure) = (Vec::new(), NoFit::default());
    // Of all that concern the pod: one rejection may hide another.
    let helped_by = filters.iter().map(|(plugin, _)| plugin.helped_by().0);
    failure.helped_by = helped_by.fold(Events::NODE_ADDED.0, |all, one| all | one);
    for node in cluster.nodes() {
        failure.nodes += 1;
        match admits(&filters, pod, cluster, node) {
            Ok(()) => feasible.push(node),
            Err(rejection) => {
                failure.rejections.insert(node.name.clone(), rejection);
            }
        }
    }
    match feasible.as_slice() {
        [] => Err(failure),
        [only] => Ok(only.name.clone()),
        many => Ok(best(pod, cluster, many, turn)),
    }
}

fn best(pod: &PodInfo, cluster: &Cluster, nodes: &[&NodeInfo], turn: usize) -> String {
    let mut totals = vec![0_i64; nodes.len()];
    for plugin in PLUGINS {
        if let Some(scores) = plugin.score(pod, cluster, nodes) {
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += score * plugin.weight();
            }
        }
    }
    let most = totals.iter().copied().max().unwrap_or_default();
    let winners: Vec<_> =
        totals.iter().zip(nodes).filter(|(total, _)| **total == most).map(|(_, n)| n).collect();
    winners[turn % winners.len()].name.clone()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    #[test]
    fn three_replicas_use_both_workers() {
        for turn in 0..4 {
            let mut cluster = cluster(&[node("w1", json!({})), node("w2", json!({}))]);
            let mut homes = Vec::new();
            for name in ["a", "b", "c"] {
                let pod = pod(name, json!({}));
                let home = schedule(&pod, &cluster, turn).unwrap();
                cluster.put_pod(pod, &home);
                homes.push(home);
            }
            homes.sort();
            homes.dedup();
            assert_eq!(homes, ["w1", "w2"]);
        }
    }

    #[test]
    fn a_failure_reads_as_users_know_it() {
        let cluster = cluster(&[
            node(
                "w1",
                json!({"spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}}),
            ),
            node("w2", json!({"spec": {"unschedulable": true}})),
            node("w3", json!({})),
        ]);
        let big = pod(
            "big",
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "64", "memory": "1Ti"}}}]}),
        );
        let failure = schedule(&big, &cluster, 0).unwrap_err();
        assert_eq!(
            failure.message(),
            "0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, \
             1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, \
             1 node(s) were unschedulable."
        );
        assert_eq!(
            schedule(&big, &Cluster::default(), 0).unwrap_err().message(),
            "no nodes available to schedule pods"
        );
    }

    #[test]
    fn room_made_for_a_more_important_pod_is_not_given_away() {
        let mut cluster = cluster(&[node("w1", json!({}))]);
        let asking = |name: &str, priority: i32| {
            pod(
                name,
                json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]}),
            )
        };
        cluster.nominate(asking("important", 10), "w1", Vec::new(), std::time::Instant::now());
        assert!(schedule(&asking("other", 0), &cluster, 0).is_err());
        assert!(schedule(&asking("urgent", 20), &cluster, 0).is_ok());
        assert!(schedule(&asking("important", 10), &cluster, 0).is_ok());
    }
}
