//! Rules that select requests by operation and resource, in webhooks and in admission policies
//! alike. Source: `admissionregistration.k8s.io/v1 RuleWithOperations`.

use machinery::GroupVersionResource;
use serde_json::Value;

use crate::attributes::Operation;
use crate::object::{items, text};

/// One rule.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    /// Names of the objects meant; empty: all. Policies alone have it.
    names: Vec<String>,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What the request does.
    pub operation: Operation,
    /// The resource, in one of its versions.
    pub gvr: &'a GroupVersionResource,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The namespace, or empty. For a namespace object, its own name.
    pub namespace: &'a str,
    /// The object's name; empty when it is still to be generated.
    pub name: &'a str,
}

impl Rule {
    /// Reads `rules[*]`, `resourceRules[*]` or `excludeResourceRules[*]`.
    pub fn from_json(rule: &Value) -> Self {
        let list = |key: &str| items(&rule[key]).map(|v| text(v).to_owned()).collect();
        Self {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: list("resources"),
            scope: text(&rule["scope"]).to_owned(),
            names: list("resourceNames"),
        }
    }

    /// All rules of a list.
    pub fn list(rules: &Value) -> Vec<Self> {
        items(rules).map(Self::from_json).collect()
    }

    /// True when the rule selects the request.
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        self.in_scope(asked)
            && has(&self.operations, asked.operation.as_str())
            && has(&self.groups, &asked.gvr.group)
            && has(&self.versions, &asked.gvr.version)
            && self.resources.iter().any(|resource| resource_matches(resource, asked))
            && (self.names.is_empty() || self.names.iter().any(|name| name == asked.name))
    }

    /// Namespace objects are cluster-scoped, although their requests carry a namespace.
    fn in_scope(&self, asked: &Asked<'_>) -> bool {
        let is_namespace = asked.gvr.group.is_empty() && asked.gvr.resource == "namespaces";
        let in_namespace = !is_namespace && !asked.namespace.is_empty();
        match self.scope.as_str() {
            "" | "*" => true,
            "Namespaced" => in_namespace,
            "Cluster" => !in_namespace,
            _ => false,
        }
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

/// `pods`, `pods/log`, `pods/*`, `*`, `*/scale`, `*/*`. Without a slash no subresource is meant.
fn resource_matches(pattern: &str, asked: &Asked<'_>) -> bool {
    let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
    (resource == "*" || resource == asked.gvr.resource) && (sub == "*" || sub == asked.subresource)
}

/// True for the kinds that configure admission itself: nothing that they configure applies to
/// them, so that they can always be repaired.
pub fn is_exempt(group: &str, kind: &str) -> bool {
    group == "admissionregistration.k8s.io"
        && [
            "ValidatingWebhookConfiguration",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
        ]
        .contains(&kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_selects_by_every_one_of_its_parts() {
        let gvr = GroupVersionResource {
            group: "apps".into(),
            version: "v1".into(),
            resource: "deployments".into(),
        };
        let asked = Asked {
            operation: Operation::Update,
            gvr: &gvr,
            subresource: "scale",
            namespace: "ns",
            name: "web",
        };
        let matches = |resources: &[&str], scope: &str, operation: &str| {
            let rule = json!({
                "operations": [operation], "apiGroups": ["apps"], "apiVersions": ["*"],
                "resources": resources, "scope": scope,
            });
            Rule::from_json(&rule).matches(&asked)
        };
        assert!(matches(&["deployments/scale"], "*", "UPDATE"));
        assert!(matches(&["*/*"], "Namespaced", "*"));
        assert!(matches(&["pods", "*/scale"], "", "UPDATE"));
        assert!(!matches(&["deployments"], "*", "UPDATE"));
        assert!(!matches(&["*"], "*", "UPDATE"));
        assert!(!matches(&["*/*"], "Cluster", "UPDATE"));
        assert!(!matches(&["*/*"], "*", "CREATE"));
    }

    #[test]
    fn a_namespace_is_cluster_scoped_although_it_has_one() {
        let gvr = GroupVersionResource {
            group: String::new(),
            version: "v1".into(),
            resource: "namespaces".into(),
        };
        let asked = Asked {
            operation: Operation::Create,
            gvr: &gvr,
            subresource: "",
            namespace: "ns",
            name: "ns",
        };
        let rule = |scope: &str| {
            Rule::from_json(&json!({
                "operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["namespaces"], "scope": scope,
            }))
        };
        assert!(rule("Cluster").matches(&asked));
        assert!(!rule("Namespaced").matches(&asked));
    }
}
