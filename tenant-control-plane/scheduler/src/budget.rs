//! PodDisruptionBudgets, as preemption looks at them. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use component::selector;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::pod::PodInfo;

/// What may still be disrupted.
#[derive(Clone, Debug)]
pub struct Budget {
    selector: Option<LabelSelector>,
    allowed: i32,
    /// Names of pods whose leaving is counted already.
    disrupted: BTreeSet<String>,
}

impl Budget {
    /// Of an object.
    pub fn of(budget: &PodDisruptionBudget) -> Self {
        let status = budget.status.clone().unwrap_or_default();
        Self {
            selector: budget.spec.as_ref().and_then(|spec| spec.selector.clone()),
            allowed: status.disruptions_allowed,
            disrupted: status.disrupted_pods.unwrap_or_default().into_keys().collect(),
        }
    }

    /// An empty selector, which elsewhere selects everything, selects nothing here, as upstream.
    fn covers(&self, pod: &PodInfo) -> bool {
        self.selector.as_ref().is_some_and(|wanted| {
            let rules = wanted.match_labels.as_ref().is_some_and(|labels| !labels.is_empty())
                || wanted.match_expressions.as_ref().is_some_and(|rules| !rules.is_empty());
            rules && !pod.labels.is_empty() && selector::matches(wanted, Some(&pod.labels))
        })
    }
}

/// The uids of those pods whose leaving, in this order, would break a budget.
pub fn breaking(
    budgets: &HashMap<String, BTreeMap<String, Budget>>,
    pods: &[Arc<PodInfo>],
) -> BTreeSet<String> {
    let mut left: BTreeMap<(&str, &str), i32> = BTreeMap::new();
    let mut breaking = BTreeSet::new();
    for pod in pods {
        for (name, budget) in budgets.get(&pod.namespace).into_iter().flatten() {
            if !budget.covers(pod) || budget.disrupted.contains(&pod.name) {
                continue;
            }
            let left = left.entry((&pod.namespace, name)).or_insert(budget.allowed);
            *left -= 1;
            if *left < 0 {
                breaking.insert(pod.uid.clone());
            }
        }
    }
    breaking
}
