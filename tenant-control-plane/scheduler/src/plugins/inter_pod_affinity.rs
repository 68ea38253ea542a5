//! InterPodAffinity: pods that want to be near, or away from, other pods.
//!
//! Source: Kubernetes documentation, "Inter-pod affinity and anti-affinity". Anti-affinity counts in
//! both directions: an existing pod may refuse a new neighbour.

use std::collections::HashMap;

use super::{Events, Filter, MAX_SCORE, Plugin, Rejection};
use crate::cluster::{Cluster, NodeInfo};
use crate::pod::{PodInfo, Term};

/// See the module documentation.
pub struct InterPodAffinity;

/// Weight with which an existing pod's required affinity draws a new pod (upstream's default).
const HARD_WEIGHT: i64 = 1;

/// Counts or weights per domain: by label key, then value. There are few keys, but with
/// `kubernetes.io/hostname` as many values as nodes.
type Domains<'a> = HashMap<&'a str, HashMap<&'a str, i64>>;

fn selects(term: &Term, pod: &PodInfo, cluster: &Cluster) -> bool {
    term.selects(pod, cluster.namespaces.get(&pod.namespace))
}

fn add<'a>(domains: &mut Domains<'a>, term: &'a Term, node: &'a NodeInfo, weight: i64) {
    if let Some(value) = node.labels.get(&term.topology_key) {
        *domains.entry(&term.topology_key).or_default().entry(value).or_default() += weight;
    }
}

fn at(domains: &Domains<'_>, key: &str, node: &NodeInfo) -> i64 {
    let values = domains.get(key).zip(node.labels.get(key));
    values.and_then(|(values, own)| values.get(own.as_str())).copied().unwrap_or_default()
}

/// The sum over all domains that a node is in.
fn everywhere(domains: &Domains<'_>, node: &NodeInfo) -> i64 {
    domains.keys().map(|key| at(domains, key, node)).sum()
}

/// Where existing pods match the new pod's required terms, and where existing pods refuse it.
struct Required<'a> {
    near: Domains<'a>,
    away: Domains<'a>,
    refused: Domains<'a>,
}

fn required<'a>(pod: &'a PodInfo, cluster: &'a Cluster) -> Required<'a> {
    let mut found =
        Required { near: HashMap::new(), away: HashMap::new(), refused: HashMap::new() };
    let terms = &pod.terms;
    let own_terms = !terms.affinity.is_empty() || !terms.anti_affinity.is_empty();
    for node in cluster.nodes() {
        if !own_terms && node.with_anti_affinity == 0 {
            continue;
        }
        for other in node.pods.values() {
            for term in other.terms.anti_affinity.iter().filter(|term| selects(term, pod, cluster))
            {
                add(&mut found.refused, term, node, 1);
            }
            // A pod must match all affinity terms to count for any.
            if !terms.affinity.is_empty()
                && terms.affinity.iter().all(|t| selects(t, other, cluster))
            {
                terms.affinity.iter().for_each(|term| add(&mut found.near, term, node, 1));
            }
            for term in terms.anti_affinity.iter().filter(|term| selects(term, other, cluster)) {
                add(&mut found.away, term, node, 1);
            }
        }
    }
    found
}

/// True when the pod may be the first of a group that wants to be together: nobody matches yet, and
/// it matches its own terms.
fn is_first(pod: &PodInfo, found: &Required<'_>, cluster: &Cluster) -> bool {
    found.near.is_empty() && pod.terms.affinity.iter().all(|term| selects(term, pod, cluster))
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn helped_by(&self) -> Events {
        Events::NODE_ADDED.or(Events::NODE_LABELS).or(Events::POD_ADDED).or(Events::POD_REMOVED)
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Filter<'a>> {
        let terms = &pod.terms;
        let concerned = !terms.affinity.is_empty()
            || !terms.anti_affinity.is_empty()
            || cluster.has_anti_affinity();
        if !concerned {
            return None;
        }
        let found = required(pod, cluster);
        if terms.affinity.is_empty() && terms.anti_affinity.is_empty() && found.refused.is_empty() {
            return None;
        }
        let first = is_first(pod, &found, cluster);
        Some(Box::new(move |node| {
            let labelled = terms.affinity.iter().all(|t| node.labels.contains_key(&t.topology_key));
            let near = terms.affinity.iter().all(|t| at(&found.near, &t.topology_key, node) > 0);
            if !terms.affinity.is_empty() && !(labelled && (near || first)) {
                return Err(Rejection::incurable("node(s) didn't match pod affinity rules"));
            }
            if terms.anti_affinity.iter().any(|t| at(&found.away, &t.topology_key, node) > 0) {
                return Err(Rejection::curable("node(s) didn't match pod anti-affinity rules"));
            }
            if everywhere(&found.refused, node) > 0 {
                return Err(Rejection::curable(
                    "node(s) didn't satisfy existing pods anti-affinity rules",
                ));
            }
            Ok(())
        }))
    }

    fn score(&self, pod: &PodInfo, cluster: &Cluster, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let terms = &pod.terms;
        let own = !terms.preferred.is_empty() || !terms.preferred_anti.is_empty();
        let mut weights = Domains::new();
        for node in cluster.nodes() {
            if !own && node.with_affinity == 0 {
                continue;
            }
            for other in node.pods.values() {
                for term in terms.preferred.iter().filter(|t| selects(t, other, cluster)) {
                    add(&mut weights, term, node, term.weight);
                }
                for term in terms.preferred_anti.iter().filter(|t| selects(t, other, cluster)) {
                    add(&mut weights, term, node, -term.weight);
                }
                for term in other.terms.affinity.iter().filter(|t| selects(t, pod, cluster)) {
                    add(&mut weights, term, node, HARD_WEIGHT);
                }
                for term in other.terms.preferred.iter().filter(|t| selects(t, pod, cluster)) {
                    add(&mut weights, term, node, term.weight);
                }
                for term in other.terms.preferred_anti.iter().filter(|t| selects(t, pod, cluster)) {
                    add(&mut weights, term, node, -term.weight);
                }
            }
        }
        if weights.is_empty() {
            return None;
        }
        let sums: Vec<_> = nodes.iter().map(|node| everywhere(&weights, node)).collect();
        let (least, most) = (sums.iter().min()?, sums.iter().max()?);
        let range = most - least;
        let score = |sum: &i64| if range == 0 { 0 } else { MAX_SCORE * (sum - least) / range };
        Some(sums.iter().map(score).collect())
    }

    fn weight(&self) -> i64 {
        2
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{cluster, node, pod, pod_with};

    fn term(app: &str) -> Value {
        json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"})
    }

    fn required(kind: &str, app: &str) -> Value {
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term(app)]}}})
    }

    fn allowed(cluster: &Cluster, pod: &PodInfo) -> Vec<String> {
        let check = InterPodAffinity.filter(pod, cluster);
        let fits = |node: &&NodeInfo| check.as_ref().is_none_or(|check| check(node).is_ok());
        cluster.nodes().filter(fits).map(|node| node.name.clone()).collect()
    }

    fn two() -> Cluster {
        cluster(&[node("w1", json!({})), node("w2", json!({}))])
    }

    #[test]
    fn affinity_follows_and_the_first_of_a_group_may_go_anywhere() {
        let mut cluster = two();
        let with_web = pod("p", required("podAffinity", "web"));
        assert_eq!(allowed(&cluster, &with_web), ["w1", "w2"], "the first of its kind");
        cluster.put_pod(pod("x", json!({})), "w2");
        assert_eq!(allowed(&cluster, &with_web), ["w2"]);
        let with_db = pod("q", required("podAffinity", "db"));
        assert!(allowed(&cluster, &with_db).is_empty());
    }

    #[test]
    fn anti_affinity_counts_in_both_directions() {
        let mut cluster = two();
        let alone = pod("lonely", required("podAntiAffinity", "web"));
        cluster.put_pod(alone.clone(), "w1");
        assert_eq!(allowed(&cluster, &pod("plain", json!({}))), ["w2"], "refused by the pod there");
        assert_eq!(allowed(&cluster, &pod("second", required("podAntiAffinity", "web"))), ["w2"]);
        let other = pod_with("db", json!({"metadata": {"labels": {"app": "db"}}}));
        assert_eq!(allowed(&cluster, &other), ["w1", "w2"]);
        let elsewhere = pod_with("far", json!({"metadata": {"namespace": "other"}}));
        assert_eq!(
            allowed(&cluster, &elsewhere),
            ["w1", "w2"],
            "terms are about their own namespace"
        );
    }

    #[test]
    fn preferences_rank_nodes() {
        let mut cluster = two();
        cluster.put_pod(pod("x", json!({})), "w1");
        let shy = pod(
            "p",
            json!({"affinity": {"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "podAffinityTerm": term("web")}]}}}),
        );
        let nodes: Vec<_> = cluster.nodes().collect();
        assert_eq!(InterPodAffinity.score(&shy, &cluster, &nodes).unwrap(), [0, 100]);
    }
}
