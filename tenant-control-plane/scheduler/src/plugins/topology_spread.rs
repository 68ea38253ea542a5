//! PodTopologySpread: like pods are spread over zones, hosts or whatever label makes domains.
//!
//! Source: Kubernetes documentation, "Pod Topology Spread Constraints". Pods without constraints of
//! their own get the documented defaults: at most 3 more on one host and 5 more in one zone, where
//! possible.

use std::collections::{HashMap, HashSet};

use component::placement::{required_node_affinity, untolerated};
use component::selector;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Events, Filter, MAX_SCORE, Plugin, Rejection};
use crate::cluster::{Cluster, NodeInfo};
use crate::pod::PodInfo;

/// See the module documentation.
pub struct PodTopologySpread;

/// One constraint, ready to be counted.
struct Constraint {
    max_skew: i64,
    key: String,
    /// Pods that match all of these are counted.
    selectors: Vec<LabelSelector>,
    min_domains: i64,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    fn new(raw: &TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let mut wanted = raw.label_selector.clone();
        // `matchLabelKeys`: only pods with the same values, such as those of the same revision.
        if let Some(selector) = &mut wanted {
            for key in raw.match_label_keys.iter().flatten() {
                if let Some(value) = pod.labels.get(key) {
                    let labels = selector.match_labels.get_or_insert_default();
                    labels.insert(key.clone(), value.clone());
                }
            }
        }
        let honors = |policy: Option<&str>, default: bool| match policy {
            Some("Honor") => true,
            Some("Ignore") => false,
            _ => default,
        };
        Self {
            max_skew: i64::from(raw.max_skew),
            key: raw.topology_key.clone(),
            selectors: wanted.into_iter().collect(),
            min_domains: i64::from(raw.min_domains.unwrap_or(1)),
            honor_affinity: honors(raw.node_affinity_policy.as_deref(), true),
            honor_taints: honors(raw.node_taints_policy.as_deref(), false),
        }
    }

    fn default(max_skew: i64, key: &str, selectors: &[LabelSelector]) -> Self {
        Self {
            max_skew,
            key: key.to_owned(),
            selectors: selectors.to_vec(),
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        }
    }

    fn counts_pod(&self, other: &PodInfo, namespace: &str) -> bool {
        other.namespace == namespace
            && !other.deleting
            && !self.selectors.is_empty()
            && self.selectors.iter().all(|wanted| selector::matches(wanted, Some(&other.labels)))
    }

    /// Whether a node's domain takes part.
    fn counts_node(&self, node: &NodeInfo, pod: &PodInfo) -> bool {
        let spec = pod.spec();
        let tolerations = spec.tolerations.as_deref().unwrap_or_default();
        (!self.honor_affinity || required_node_affinity(spec, &node.name, &node.labels))
            && (!self.honor_taints
                || untolerated(&node.taints, tolerations, &["NoSchedule", "NoExecute"]).is_none())
    }

    fn matching_on(&self, node: &NodeInfo, pod: &PodInfo) -> i64 {
        node.pods.values().filter(|other| self.counts_pod(other, &pod.namespace)).count() as i64
    }
}

fn constraints(pod: &PodInfo, cluster: &Cluster, when: &str) -> Vec<Constraint> {
    let own = pod.spread.iter().filter(|raw| raw.when_unsatisfiable == when);
    let own: Vec<_> = own.map(|raw| Constraint::new(raw, pod)).collect();
    if !pod.spread.is_empty() || when != "ScheduleAnyway" {
        return own;
    }
    let Some(selectors) = cluster.default_spread(pod) else { return own };
    vec![
        Constraint::default(3, "kubernetes.io/hostname", &selectors),
        Constraint::default(5, "topology.kubernetes.io/zone", &selectors),
    ]
}

/// Pods per domain of one constraint.
fn count_domains(
    constraint: &Constraint,
    keys: &[&str],
    pod: &PodInfo,
    cluster: &Cluster,
) -> HashMap<String, i64> {
    let mut domains = HashMap::new();
    for node in cluster.nodes() {
        // A node that lacks a label of any constraint is outside all domains.
        if !keys.iter().all(|key| node.labels.contains_key(*key))
            || !constraint.counts_node(node, pod)
        {
            continue;
        }
        let domain = node.labels[&constraint.key].clone();
        *domains.entry(domain).or_default() += constraint.matching_on(node, pod);
    }
    domains
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn helped_by(&self) -> Events {
        Events::ANY
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Filter<'a>> {
        let hard = constraints(pod, cluster, "DoNotSchedule");
        if hard.is_empty() {
            return None;
        }
        let keys: Vec<_> = hard.iter().map(|constraint| constraint.key.as_str()).collect();
        let counted: Vec<_> = hard
            .iter()
            .map(|constraint| {
                let domains = count_domains(constraint, &keys, pod, cluster);
                let enough = domains.len() as i64 >= constraint.min_domains;
                let least = if enough { domains.values().copied().min().unwrap_or(0) } else { 0 };
                let own = i64::from(constraint.counts_pod(pod, &pod.namespace));
                (domains, least, own)
            })
            .collect();
        Some(Box::new(move |node| {
            for (constraint, (domains, least, own)) in hard.iter().zip(&counted) {
                let Some(domain) = node.labels.get(&constraint.key) else {
                    return Err(Rejection::incurable(
                        "node(s) didn't match pod topology spread constraints (missing required label)",
                    ));
                };
                let there = domains.get(domain).copied().unwrap_or_default();
                if there + own - least > constraint.max_skew {
                    return Err(Rejection::curable(
                        "node(s) didn't match pod topology spread constraints",
                    ));
                }
            }
            Ok(())
        }))
    }

    fn score(&self, pod: &PodInfo, cluster: &Cluster, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let soft = constraints(pod, cluster, "ScheduleAnyway");
        let defaults = pod.spread.is_empty();
        if soft.is_empty() {
            return None;
        }
        // Own constraints leave nodes without the label out; the defaults only skip what is missing.
        let keys: Vec<_> = soft.iter().map(|constraint| constraint.key.as_str()).collect();
        let ignored: HashSet<_> = nodes
            .iter()
            .filter(|node| !defaults && !keys.iter().all(|key| node.labels.contains_key(*key)))
            .map(|node| node.name.as_str())
            .collect();
        let mut sums = vec![0.0_f64; nodes.len()];
        for constraint in &soft {
            let domains = count_domains(constraint, &[&constraint.key], pod, cluster);
            // The more domains there are, the less one pod in each of them says.
            let weight = ((domains.len() + 2) as f64).ln();
            for (sum, node) in sums.iter_mut().zip(nodes) {
                if let Some(domain) = node.labels.get(&constraint.key) {
                    let there = domains.get(domain).copied().unwrap_or_default();
                    *sum += there as f64 * weight + (constraint.max_skew - 1) as f64;
                }
            }
        }
        Some(rank(&sums, nodes, &ignored))
    }

    fn weight(&self) -> i64 {
        2
    }
}

/// Turns counts (low is good) into scores (high is good).
fn rank(sums: &[f64], nodes: &[&NodeInfo], ignored: &HashSet<&str>) -> Vec<i64> {
    let rounded: Vec<_> = sums.iter().map(|sum| sum.round() as i64).collect();
    let counted = || {
        let pairs = rounded.iter().zip(nodes);
        pairs.filter(|(_, node)| !ignored.contains(node.name.as_str())).map(|(sum, _)| *sum)
    };
    let (least, most) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
    let score = |(sum, node): (&i64, &&NodeInfo)| {
        if ignored.contains(node.name.as_str()) {
            0
        } else if most == 0 {
            MAX_SCORE
        } else {
            MAX_SCORE * (most + least - sum) / most
        }
    };
    rounded.iter().zip(nodes).map(score).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{cluster, node, pod, pod_with};

    fn zoned(name: &str, zone: &str) -> k8s_openapi::api::core::v1::Node {
        node(name, json!({"metadata": {"labels": {"zone": zone}}}))
    }

    fn spread(extra: Value) -> Value {
        let mut constraint = json!({"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}});
        constraint.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"topologySpreadConstraints": [constraint]})
    }

    fn allowed(cluster: &Cluster, pod: &PodInfo) -> Vec<String> {
        let check = PodTopologySpread.filter(pod, cluster).unwrap();
        cluster.nodes().filter(|node| check(node).is_ok()).map(|node| node.name.clone()).collect()
    }

    #[test]
    fn hard_constraints_keep_the_skew() {
        let mut cluster = cluster(&[
            zoned("a1", "a"),
            zoned("a2", "a"),
            zoned("b1", "b"),
            node("no-zone", json!({})),
        ]);
        cluster.put_pod(pod("x", json!({})), "a1");
        assert_eq!(allowed(&cluster, &pod("p", spread(json!({})))), ["b1"]);
        assert_eq!(allowed(&cluster, &pod("p", spread(json!({"maxSkew": 2})))), ["a1", "a2", "b1"]);
        assert!(
            allowed(&cluster, &pod("p", spread(json!({"minDomains": 3}))))
                .contains(&"b1".to_owned())
        );
        cluster.put_pod(pod("y", json!({})), "b1");
        assert!(allowed(&cluster, &pod("p", spread(json!({"minDomains": 3})))).is_empty());
    }

    #[test]
    fn a_node_the_pod_cannot_use_does_not_hold_it_back() {
        let mut cluster = cluster(&[zoned("a1", "a"), zoned("b1", "b")]);
        cluster.put_pod(pod("x", json!({})), "a1");
        let mut spec = spread(json!({}));
        spec["nodeSelector"] = json!({"zone": "a"});
        assert_eq!(
            allowed(&cluster, &pod("p", spec)),
            ["a1", "b1"],
            "zone b is not a domain for it"
        );
    }

    #[test]
    fn pods_of_a_service_are_spread_by_default() {
        let mut cluster = cluster(&[node("w1", json!({})), node("w2", json!({}))]);
        let service = [("web".to_owned(), [("app".to_owned(), "web".to_owned())].into())];
        cluster.services.insert("ns".into(), service.into());
        cluster.put_pod(pod("x", json!({})), "w1");
        let nodes: Vec<_> = cluster.nodes().collect();
        let scores = PodTopologySpread.score(&pod("p", json!({})), &cluster, &nodes).unwrap();
        assert!(scores[1] > scores[0], "{scores:?}");
        let lonely = pod_with("q", json!({"metadata": {"labels": {"app": "none"}}}));
        assert!(PodTopologySpread.score(&lonely, &cluster, &nodes).is_none());
    }
}
