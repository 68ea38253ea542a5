//! On which nodes a DaemonSet's pods belong, and what such a pod looks like. Pure.

use std::collections::BTreeMap;

use component::placement::{required_node_affinity, taints, untolerated};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};

use crate::pods;
use crate::revisions::HASH_LABEL;

/// Taints that a DaemonSet's pods always tolerate. Source: Kubernetes documentation, "DaemonSet",
/// section "Taints and tolerations".
const ALWAYS: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// And this one when they use the host's network.
const HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Everything about a node that matters to DaemonSets.
pub(super) fn face(node: &Node) -> (Option<BTreeMap<String, String>>, Vec<Taint>, bool) {
    (
        node.metadata.labels.clone(),
        taints(node).to_vec(),
        node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default(),
    )
}

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let host = (spec.host_network == Some(true)).then_some(HOST_NETWORK);
    for (key, effect) in ALWAYS.into_iter().chain(host) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Default::default()
        };
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// Whether a pod belongs on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It does.
    Run,
    /// No new pod, but one that is there may stay.
    Stay,
    /// It does not.
    No,
}

pub(super) fn fit(set: &DaemonSet, node: &Node) -> Fit {
    let Some(spec) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else {
        return Fit::No;
    };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let wanted = spec.node_name.as_deref().filter(|wanted| !wanted.is_empty());
    if wanted.is_some_and(|wanted| wanted != name) || !required_node_affinity(spec, name, &labels) {
        return Fit::No;
    }
    let tolerations = tolerations(spec);
    if untolerated(taints(node), &tolerations, &["NoExecute"]).is_some() {
        Fit::No
    } else if untolerated(taints(node), &tolerations, &["NoSchedule"]).is_some() {
        Fit::Stay
    } else {
        Fit::Run
    }
}

/// A requirement that holds on one node only.
fn only_on(node: &str) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    }
}

/// A pod of the set for one node. The scheduler binds it; the affinity leaves it no choice.
pub(super) fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod =
        pods::from_template(&template, set, set.metadata.name.as_deref().unwrap_or_default());
    pod.metadata.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let term =
        NodeSelectorTerm { match_expressions: None, match_fields: Some(vec![only_on(node)]) };
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    pod
}

/// The node that a pod of the set is, or will be, on.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let mut by_name = fields.filter(|rule| rule.key == "metadata.name" && rule.operator == "In");
    by_name.next()?.values.as_ref()?.first().map(String::as_str)
}
