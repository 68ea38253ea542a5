//! Where a pod may run, as far as more than one component applies the rule: taints and tolerations,
//! node selectors and node affinity.
//!
//! Source: Kubernetes documentation, "Taints and Tolerations" and "Assigning Pods to Nodes".

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

use crate::selector::{self, Labels};

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

/// The first taint with one of the effects that no toleration covers.
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    let relevant = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    relevant.into_iter().find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// Whether a node, by name and labels, satisfies one term. A term without any rule satisfies nothing.
pub fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let by_label = expressions.iter().all(|rule| {
        let values = rule.values.as_deref().unwrap_or_default();
        selector::requirement(labels, &rule.key, &rule.operator, values)
    });
    by_label
        && fields.iter().all(|rule| {
            // `metadata.name` is the only field that there is.
            let known = Labels::from([("metadata.name".to_owned(), name.to_owned())]);
            let values = rule.values.as_deref().unwrap_or_default();
            rule.key == "metadata.name"
                && selector::requirement(&known, &rule.key, &rule.operator, values)
        })
}

/// Whether a node satisfies any of the terms.
pub fn selector_matches(selector: &NodeSelector, name: &str, labels: &Labels) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, name, labels))
}

/// Whether a node satisfies `spec.nodeSelector` and the required node affinity.
pub fn required_node_affinity(spec: &PodSpec, name: &str, labels: &Labels) -> bool {
    if let Some(wanted) = &spec.node_selector
        && !selector::matches_map(wanted, Some(labels))
    {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    affinity
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
        .is_none_or(|required| selector_matches(required, name, labels))
}

/// The node's taints.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn toleration(value: serde_json::Value) -> Toleration {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "gpu", "value": "a", "effect": "NoSchedule"}))
                .unwrap();
        assert!(tolerates(&toleration(json!({"key": "gpu", "value": "a"})), &taint));
        assert!(!tolerates(&toleration(json!({"key": "gpu", "value": "b"})), &taint));
        assert!(!tolerates(&toleration(json!({"key": "cpu", "operator": "Exists"})), &taint));
        assert!(tolerates(&toleration(json!({"operator": "Exists"})), &taint));
        let other = toleration(json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}));
        assert!(!tolerates(&other, &taint));
        let taints = [taint];
        assert!(untolerated(&taints, &[other], &["NoSchedule", "NoExecute"]).is_some());
        assert!(untolerated(&taints, &[], &["NoExecute"]).is_none());
    }

    #[test]
    fn node_affinity_needs_the_selector_and_one_term() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [], "nodeSelector": {"disk": "ssd"},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {},
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["w9"]}]},
                ]}}}
        }))
        .unwrap();
        let labels = |zone: &str| {
            Labels::from([("disk".into(), "ssd".into()), ("zone".into(), zone.into())])
        };
        assert!(required_node_affinity(&spec, "w1", &labels("a")));
        assert!(!required_node_affinity(&spec, "w1", &labels("b")));
        assert!(required_node_affinity(&spec, "w9", &labels("b")));
        assert!(!required_node_affinity(&spec, "w9", &Labels::new()));
    }
}
