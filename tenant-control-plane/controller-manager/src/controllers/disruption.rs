//! Disruption: keeps each PodDisruptionBudget's count of how many pods may be evicted, which the API
//! server's eviction subresource obeys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use component::workqueue::Requeue;
use component::{Informer, ObjectKey, WorkQueue, selector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::context::{Context, Running, enqueue_changes};
use crate::owners;
use crate::pods;
use crate::writes::{Writer, ignore_missing};

/// How long an eviction may take until the pod shows as being deleted.
const EVICTION_TIMEOUT: i64 = 120;

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let budgets = context.informer::<PodDisruptionBudget>();
    let cache = pods::informer(context);
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&budgets, &queue);
    let (all, wake) = (budgets.clone(), queue.clone());
    cache.on_change(move |change| {
        for pod in [change.old, change.new].into_iter().flatten() {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            for budget in all.list_namespace(namespace) {
                if selects(&budget, pod) {
                    wake.add(ObjectKey::of(budget.as_ref()));
                }
            }
        }
    });
    let controller = Arc::new(Controller {
        writer: Writer::new(context.client.clone(), budgets),
        pods: cache,
        replica_sets: context.informer::<ReplicaSet>(),
        deployments: context.informer::<Deployment>(),
        stateful_sets: context.informer::<StatefulSet>(),
    });
    Ok(Some(context.work("disruption", queue, 2, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })))
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let wanted = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector::matches_opt(wanted, pod.metadata.labels.as_ref())
}

struct Controller {
    writer: Writer<PodDisruptionBudget>,
    pods: Arc<Informer<Pod>>,
    replica_sets: Arc<Informer<ReplicaSet>>,
    deployments: Arc<Informer<Deployment>>,
    stateful_sets: Arc<Informer<StatefulSet>>,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let Some(budget) = self.writer.cache().get(key) else { return Ok(None) };
        let all = self.pods.list_namespace(&key.namespace);
        let covered: Vec<_> = all.into_iter().filter(|pod| selects(&budget, pod)).collect();
        let expected = self.expected(&key.namespace, &covered);
        let (status, requeue) = status(&budget, &covered, expected, Timestamp::now());
        if budget.status.as_ref() != Some(&status) {
            let mut updated = budget.as_ref().clone();
            updated.status = Some(status);
            ignore_missing(self.writer.replace_status(&updated).await)?;
        }
        Ok(requeue)
    }

    /// How many pods the controllers of these pods want together; a pod without a controller counts
    /// itself.
    fn expected(&self, namespace: &str, covered: &[Arc<Pod>]) -> i32 {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        let mut bare = 0;
        for pod in covered {
            match owners::controller_of(&pod.metadata) {
                Some(owner) => match self.scale_of(namespace, &owner.kind, &owner.name) {
                    Some((uid, scale)) => {
                        scales.insert(uid, scale);
                    }
                    None => bare += 1,
                },
                None => bare += 1,
            }
        }
        scales.values().sum::<i32>() + bare
    }

    fn scale_of(&self, namespace: &str, kind: &str, name: &str) -> Option<(String, i32)> {
        let key = ObjectKey::new(namespace, name);
        match kind {
            "ReplicaSet" => {
                let set = self.replica_sets.get(&key)?;
                if let Some(owner) = owners::controller_of(&set.metadata)
                    && owner.kind == "Deployment"
                {
                    let key = ObjectKey::new(namespace, owner.name.as_str());
                    let deployment = self.deployments.get(&key)?;
                    let spec = deployment.spec.as_ref()?;
                    return Some((owner.uid.clone(), spec.replicas.unwrap_or(1)));
                }
                Some((set.metadata.uid.clone()?, set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "StatefulSet" => {
                let set = self.stateful_sets.get(&key)?;
                Some((set.metadata.uid.clone()?, set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            _ => None,
        }
    }
}

/// A count or a percentage of `total`, rounded up.
fn resolve(value: &IntOrString, total: i32) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            i32::try_from((percent * i64::from(total) + 99) / 100).unwrap_or(i32::MAX)
        }
    }
}

fn status(
    budget: &PodDisruptionBudget,
    covered: &[Arc<Pod>],
    expected: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Requeue) {
    let spec = budget.spec.clone().unwrap_or_default();
    let old = budget.status.clone().unwrap_or_default();
    // Pods that were evicted just now count as gone although they do not show it yet.
    let mut disrupted = old.disrupted_pods.unwrap_or_default();
    disrupted.retain(|name, at| {
        let pod = covered.iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
        pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none())
            && now.as_second() - at.0.as_second() < EVICTION_TIMEOUT
    });
    let requeue = (!disrupted.is_empty()).then_some(Duration::from_secs(5));
    let healthy = covered.iter().filter(|pod| {
        pods::is_ready(pod)
            && pods::is_active(pod)
            && !pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name))
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (expected, (expected - resolve(most, expected)).max(0)),
        (None, Some(IntOrString::Int(least))) => {
            (i32::try_from(covered.len()).unwrap_or(i32::MAX), *least)
        }
        (None, Some(share)) => (expected, resolve(share, expected)),
        (None, None) => (expected, expected),
    };
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let generation = budget.metadata.generation;
    let mut conditions = old.conditions.unwrap_or_default();
    note(&mut conditions, allowed > 0, generation, now);
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions),
        current_healthy: healthy,
        desired_healthy: desired,
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: allowed,
        expected_pods: expected,
        observed_generation: generation,
    };
    (status, requeue)
}

fn note(conditions: &mut Vec<Condition>, allowed: bool, generation: Option<i64>, now: Timestamp) {
    let (state, reason) =
        if allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let old = conditions.iter().position(|condition| condition.type_ == "DisruptionAllowed");
    let old = old.map(|index| conditions.remove(index));
    let since = old.filter(|old| old.status == state).map(|old| old.last_transition_time);
    conditions.push(Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn budget(spec: Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({"metadata": {"name": "b", "generation": 3}, "spec": spec}))
            .unwrap()
    }

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    }

    #[test]
    fn budgets_allow_what_they_say() {
        let pods = [pod("a", true), pod("b", true), pod("c", false)];
        let allowed = |spec: Value| {
            let status = status(&budget(spec), &pods, 3, Timestamp::now()).0;
            (status.desired_healthy, status.disruptions_allowed)
        };
        assert_eq!(allowed(json!({"minAvailable": 1})), (1, 1));
        assert_eq!(allowed(json!({"minAvailable": "50%"})), (2, 0));
        assert_eq!(allowed(json!({"maxUnavailable": 2})), (1, 1));
        assert_eq!(allowed(json!({"maxUnavailable": "34%"})), (1, 1));
        assert_eq!(allowed(json!({"maxUnavailable": 0})), (3, 0));
    }

    #[test]
    fn a_pod_evicted_just_now_counts_as_gone() {
        let mut budget = budget(json!({"minAvailable": 1}));
        let now = Timestamp::now();
        let disrupted = json!({"a": Time(now), "gone": Time(now)});
        budget.status =
            serde_json::from_value(json!({"disruptedPods": disrupted, "currentHealthy": 0,
            "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}))
            .unwrap();
        let (status, requeue) = status(&budget, &[pod("a", true), pod("b", true)], 2, now);
        assert_eq!((status.current_healthy, status.disruptions_allowed), (1, 0));
        assert_eq!(status.disrupted_pods.unwrap().len(), 1);
        assert!(requeue.is_some());
    }
}
