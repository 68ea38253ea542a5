//! ClusterRole aggregation: a role with an `aggregationRule` holds the rules of all roles whose
//! labels it selects. Source: Kubernetes documentation, "Aggregated ClusterRoles".

use machinery::LabelSelector;
use serde_json::Value;

/// The ClusterRoles whose rules are not what their `aggregationRule` makes them, with the rules
/// that they should have. Objects of other kinds are skipped.
///
/// Roles may aggregate aggregated roles: the answer is what repeated aggregation ends in.
pub fn aggregate(cluster_roles: &[Value]) -> Vec<Value> {
    let mut roles: Vec<Value> = cluster_roles
        .iter()
        .filter(|role| role["kind"].is_null() || role["kind"] == "ClusterRole")
        .cloned()
        .collect();
    roles.sort_by(|a, b| name(a).cmp(name(b)));
    let mut changed = vec![false; roles.len()];
    // Each round settles at least one level; a chain is at most as long as there are roles.
    for _ in 0..roles.len() {
        let mut settled = true;
        for at in 0..roles.len() {
            if roles[at]["aggregationRule"].is_null() {
                continue;
            }
            let rules = selected_rules(&roles, at);
            if roles[at]["rules"].as_array().is_none_or(|old| *old != rules) {
                roles[at]["rules"] = rules.into();
                changed[at] = true;
                settled = false;
            }
        }
        if settled {
            break;
        }
    }
    roles.into_iter().zip(changed).filter_map(|(role, changed)| changed.then_some(role)).collect()
}

fn selected_rules(roles: &[Value], at: usize) -> Vec<Value> {
    let selectors = roles[at]["aggregationRule"]["clusterRoleSelectors"].as_array();
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors.into_iter().flatten() {
        // A selector that cannot be read selects nothing.
        let Ok(selector) = LabelSelector::from_json(selector) else { continue };
        for (other, role) in roles.iter().enumerate() {
            if other == at || !selector.matches_labels(&role["metadata"]["labels"]) {
                continue;
            }
            for rule in role["rules"].as_array().into_iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

fn name(role: &Value) -> &str {
    role["metadata"]["name"].as_str().unwrap_or_default()
}
