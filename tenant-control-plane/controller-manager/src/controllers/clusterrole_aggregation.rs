//! ClusterRole aggregation: a role with an `aggregationRule` has the rules of all roles that the rule
//! selects. This is how `admin`, `edit` and `view` learn about new kinds.

use std::sync::Arc;

use component::workqueue::Requeue;
use component::{ObjectKey, WorkQueue, selector};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;

use crate::context::{Context, Running};
use crate::writes::{Writer, ignore_missing};

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let roles = context.informer::<ClusterRole>();
    let queue = Arc::new(WorkQueue::new());
    let (all, wake) = (roles.clone(), queue.clone());
    roles.on_change(move |_| {
        for role in all.list() {
            if role.aggregation_rule.is_some() {
                wake.add(ObjectKey::of(role.as_ref()));
            }
        }
    });
    let writer = Writer::new(context.client.clone(), roles);
    Ok(Some(context.work("clusterrole-aggregation", queue, 1, move |key| {
        let writer = writer.clone();
        async move { sync(&writer, &key).await }
    })))
}

async fn sync(writer: &Writer<ClusterRole>, key: &ObjectKey) -> anyhow::Result<Requeue> {
    let Some(role) = writer.cache().get(key) else { return Ok(None) };
    let Some(wanted) = aggregate(&role, &writer.cache().list()) else { return Ok(None) };
    if role.rules.clone().unwrap_or_default() != wanted {
        ignore_missing(writer.patch(&role, json!({"rules": wanted})).await)?;
    }
    Ok(None)
}

/// The rules of all selected roles, in the order of the roles' names, each once.
fn aggregate(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_ref()?;
    let mut rules: Vec<PolicyRule> = Vec::new();
    for wanted in selectors {
        let selected = all.iter().filter(|other| {
            other.metadata.name != role.metadata.name
                && selector::matches(wanted, other.metadata.labels.as_ref())
        });
        for rule in selected.flat_map(|other| other.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn role(value: Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn selected_roles_rules_are_collected_once() {
        let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        let jobs = json!({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]});
        let all = [
            role(
                json!({"metadata": {"name": "a", "labels": {"to": "view"}}, "rules": [pods, jobs]}),
            ),
            role(json!({"metadata": {"name": "b", "labels": {"to": "view"}}, "rules": [pods]})),
            role(json!({"metadata": {"name": "c"}, "rules": [{"verbs": ["*"]}]})),
            role(
                json!({"metadata": {"name": "view", "labels": {"to": "view"}}, "rules": [{"verbs": ["old"]}],
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]}}),
            ),
        ];
        let rules = aggregate(&all[3], &all).unwrap();
        assert_eq!(serde_json::to_value(rules).unwrap(), json!([pods, jobs]));
        assert!(aggregate(&all[0], &all).is_none());
    }
}
