//! The roles, bindings and namespaces that every cluster has.
//!
//! The tables beside this file hold the facts; a new default role is a new line there. All are
//! upstream's, and nothing is added: what Marina's own parts may do is what upstream's may.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::authz::Rule;

const TABLES: [&str; 4] = [
    include_str!("cluster-roles.txt"),
    include_str!("controller-roles.txt"),
    include_str!("namespace-roles.txt"),
    include_str!("bindings.txt"),
];
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const GROUP: &str = "rbac.authorization.k8s.io";

/// Every object that the API server ensures at its start and from time to time: namespaces first,
/// then roles, then bindings.
pub fn bootstrap_policy() -> Vec<Value> {
    static POLICY: OnceLock<Vec<Value>> = OnceLock::new();
    POLICY.get_or_init(read).clone()
}

/// The rules of a default ClusterRole; empty when there is none of that name.
pub fn role_rules(name: &str) -> Vec<Rule> {
    bootstrap_policy()
        .iter()
        .find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == name)
        .map(Rule::all_of)
        .unwrap_or_default()
}

fn read() -> Vec<Value> {
    let mut objects: Vec<Value> = NAMESPACES.iter().map(|name| namespace(name)).collect();
    for table in TABLES {
        for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(head) = line.strip_prefix("role ") {
                objects.push(role(head));
            } else if let Some(head) = line.strip_prefix("bind ") {
                objects.push(binding(head));
            } else {
                let role = objects.last_mut().expect("a rule line follows its role line");
                let rules = role["rules"].as_array_mut().expect("roles have rules");
                rules.push(rule(line).to_value());
            }
        }
    }
    let changed = crate::aggregate(&objects);
    for role in changed {
        let name = &role["metadata"]["name"];
        let place = objects
            .iter_mut()
            .find(|o| o["kind"] == "ClusterRole" && &o["metadata"]["name"] == name)
            .expect("aggregation changes existing roles");
        *place = role;
    }
    objects
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn metadata(qualified: &str) -> Value {
    let (namespace, name) = match qualified.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, qualified),
    };
    let mut meta = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if let Some(namespace) = namespace {
        meta["namespace"] = namespace.into();
    }
    meta
}

fn role(head: &str) -> Value {
    let mut words = head.split(' ');
    let mut meta = metadata(words.next().unwrap_or_default());
    let kind = if meta["namespace"].is_null() { "ClusterRole" } else { "Role" };
    let label = |part: &str| format!("{GROUP}/aggregate-to-{part}");
    let mut selectors = Vec::new();
    for word in words {
        if let Some(part) = word.strip_prefix('+') {
            meta["labels"][label(part)] = "true".into();
        } else if let Some(part) = word.strip_prefix('<') {
            let mut labels = Map::new();
            labels.insert(label(part), "true".into());
            selectors.push(json!({"matchLabels": labels}));
        }
    }
    let mut role = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": meta, "rules": [],
    });
    if !selectors.is_empty() {
        role["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
    }
    role
}

fn rule(line: &str) -> Rule {
    let columns: Vec<&str> = line.trim().split(" | ").collect();
    let list = |at: usize| -> Vec<String> {
        let words = columns.get(at).copied().unwrap_or_default().split([',', ' ']);
        words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let verbs = list(0);
    if columns.get(1) == Some(&"url") {
        return Rule { verbs, non_resource_urls: list(2), ..Rule::default() };
    }
    let group = |g: String| if g == "core" { String::new() } else { g };
    Rule {
        verbs,
        api_groups: list(1).into_iter().map(group).collect(),
        resources: list(2),
        resource_names: list(3),
        non_resource_urls: Vec::new(),
    }
}

fn binding(head: &str) -> Value {
    let mut words = head.split(' ').peekable();
    let meta = metadata(words.next().unwrap_or_default());
    let mut role = meta["name"].as_str().unwrap_or_default().to_owned();
    if let Some(named) = words.peek().and_then(|word| word.strip_prefix('=')) {
        role = named.to_owned();
        words.next();
    }
    let subjects: Vec<Value> = words
        .map(|word| match word.split_once(':') {
            Some(("account", account)) => {
                let (namespace, name) = account.split_once('/').unwrap_or(("", account));
                json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
            }
            Some(("user", name)) => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
            Some((_, name)) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
            None => Value::Null,
        })
        .collect();
    let (kind, role_kind) = match meta["namespace"].is_null() {
        true => ("ClusterRoleBinding", "ClusterRole"),
        false => ("RoleBinding", "Role"),
    };
    let mut binding = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": meta,
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
    });
    if !subjects.is_empty() {
        binding["subjects"] = subjects.into();
    }
    binding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
        objects
            .iter()
            .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    #[test]
    fn every_binding_names_a_role_that_exists() {
        let objects = bootstrap_policy();
        for binding in objects.iter().filter(|o| !o["roleRef"].is_null()) {
            let role = &binding["roleRef"];
            let found = objects.iter().any(|o| {
                o["kind"] == role["kind"]
                    && o["metadata"]["name"] == role["name"]
                    && o["metadata"]["namespace"] == binding["metadata"]["namespace"]
            });
            assert!(found, "{binding}");
        }
    }

    #[test]
    fn admin_holds_what_edit_and_view_hold() {
        let objects = bootstrap_policy();
        let rules = |name| Rule::all_of(named(&objects, "ClusterRole", name));
        let admin = rules("admin");
        assert!(rules("view").iter().all(|rule| admin.contains(rule)));
        assert!(admin.iter().any(|r| r.resources.contains(&"roles".to_owned())));
        assert!(!rules("view").iter().any(|r| r.resources.contains(&"secrets".to_owned())));
    }

    #[test]
    fn rules_come_out_of_the_table_whole() {
        let signers = role_rules("system:certificates.k8s.io:kubelet-serving-approver");
        assert_eq!(signers[0].resource_names, ["kubernetes.io/kubelet-serving"]);
        assert_eq!(role_rules("system:kube-dns")[0].api_groups, [""]);
        assert!(role_rules("system:discovery")[0].non_resource_urls.contains(&"/apis/*".into()));
    }
}
