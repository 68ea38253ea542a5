//! ReplicaSet: keeps as many pods as `spec.replicas` says.

use std::sync::Arc;
use std::time::Duration;

use component::workqueue::Requeue;
use component::{Informer, ObjectKey, WorkQueue, selector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::context::{Context, Running, enqueue_changes};
use crate::pods::{self, PodControl};
use crate::writes::{Writer, code, namespace_is_terminating};

mod ranking;

pub use ranking::order_for_deletion;

/// Most pods created or deleted in one pass.
const BURST: usize = 500;

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let sets = context.informer::<ReplicaSet>();
    sets.add_index(crate::owners::BY_CONTROLLER, crate::owners::controller_keys);
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&sets, &queue);
    let candidates = sets.clone();
    pods::enqueue_controllers(&pods::informer(context), "ReplicaSet", &queue, move |pod| {
        selecting(&candidates, pod)
    });
    let controller = Arc::new(Controller {
        writer: Writer::new(context.client.clone(), sets),
        pods: PodControl::new(context, "replicaset-controller"),
    });
    let workers = context.config.workers.replicaset;
    Ok(Some(context.work("replicaset", queue, workers, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })))
}

/// ReplicaSets whose selector matches an orphan.
fn selecting(sets: &Informer<ReplicaSet>, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let labels = pod.metadata.labels.as_ref();
    let matching = sets.list_namespace(namespace).into_iter().filter(|set| {
        set.spec.as_ref().is_some_and(|spec| selector::matches(&spec.selector, labels))
    });
    matching.map(|set| ObjectKey::of(set.as_ref())).collect()
}

struct Controller {
    writer: Writer<ReplicaSet>,
    pods: PodControl,
}

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub enum Scale {
    /// As many as wanted.
    Keep,
    /// So many more.
    Create(usize),
    /// So many fewer.
    Delete(usize),
}

/// Compares the pods that there are with those wanted.
pub fn scale(active: usize, wanted: i32) -> Scale {
    let wanted = usize::try_from(wanted).unwrap_or_default();
    match active.cmp(&wanted) {
        std::cmp::Ordering::Equal => Scale::Keep,
        std::cmp::Ordering::Less => Scale::Create((wanted - active).min(BURST)),
        std::cmp::Ordering::Greater => Scale::Delete((active - wanted).min(BURST)),
    }
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let Some(set) = self.writer.cache().get(key) else { return Ok(None) };
        let Some(spec) = set.spec.clone() else { return Ok(None) };
        let owned = self.pods.claim(set.as_ref(), &spec.selector).await?;
        let mut active: Vec<_> = owned.iter().filter(|p| pods::is_active(p)).cloned().collect();
        let mut failure = None;
        if set.metadata.deletion_timestamp.is_none() {
            failure = self.manage(&set, &mut active).await.err();
        }
        let now = Timestamp::now();
        let terminating = owned
            .iter()
            .filter(|p| p.metadata.deletion_timestamp.is_some() && !pods::is_finished(p))
            .count();
        let status = status(&set, &active, terminating, failure.as_ref(), now);
        self.write_status(&set, status).await?;
        match failure {
            Some(error) if namespace_is_terminating(&error) => Ok(None),
            Some(error) => Err(error.into()),
            None => Ok(next_availability(&active, spec.min_ready_seconds.unwrap_or_default(), now)),
        }
    }

    async fn manage(
        &self,
        set: &ReplicaSet,
        active: &mut Vec<Arc<Pod>>,
    ) -> Result<(), kube::Error> {
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        match scale(active.len(), wanted) {
            Scale::Keep => Ok(()),
            Scale::Create(count) => {
                let template = set.spec.as_ref().and_then(|spec| spec.template.clone());
                let prefix = set.metadata.name.as_deref().unwrap_or_default();
                let pod = pods::from_template(&template.unwrap_or_default(), set, prefix);
                let (made, result) = slow_start(count, || self.pods.create(set, &pod)).await;
                active.extend(made);
                result
            }
            Scale::Delete(count) => {
                let related = self.related(set);
                let doomed = order_for_deletion(active, &related, Timestamp::now());
                let doomed: Vec<_> = doomed.into_iter().take(count).collect();
                let deletions = doomed.iter().map(|pod| self.pods.delete(set, pod));
                for result in futures::future::join_all(deletions).await {
                    result?;
                }
                active.retain(|pod| doomed.iter().all(|d| d.metadata.uid != pod.metadata.uid));
                Ok(())
            }
        }
    }

    /// Pods of all ReplicaSets with the same controller: during a rolling update, a node that has
    /// several of them loses one first.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let cache = self.writer.cache();
        let siblings = match crate::owners::controller_of(&set.metadata) {
            Some(owner) => cache.by_index(crate::owners::BY_CONTROLLER, &owner.uid),
            None => vec![Arc::new(set.clone())],
        };
        let uids = siblings.iter().filter_map(|sibling| sibling.metadata.uid.as_deref());
        uids.flat_map(|uid| self.pods.cache().by_index(crate::owners::BY_CONTROLLER, uid)).collect()
    }

    async fn write_status(&self, set: &ReplicaSet, status: ReplicaSetStatus) -> anyhow::Result<()> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut updated = set.clone();
        updated.status = Some(status);
        match self.writer.replace_status(&updated).await {
            Err(error) if code(&error) == 404 => Ok(()),
            other => other.map(|_| ()).map_err(Into::into),
        }
    }
}

/// Calls `make` up to `count` times: one, then two, four, … at once, so that a quota or admission
/// failure costs few requests. Stops after a batch with a failure.
pub async fn slow_start<T, F, Fut>(count: usize, make: F) -> (Vec<T>, Result<(), kube::Error>)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let (mut made, mut batch) = (Vec::new(), 1);
    while made.len() < count {
        let size = batch.min(count - made.len());
        let results = futures::future::join_all((0..size).map(|_| make())).await;
        let mut failure = None;
        for result in results {
            match result {
                Ok(value) => made.push(value),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            return (made, Err(error));
        }
        batch *= 2;
    }
    (made, Ok(()))
}

/// When the first ready pod that is not available yet becomes so.
pub fn next_availability(active: &[Arc<Pod>], min_ready: i32, now: Timestamp) -> Requeue {
    let waits = active.iter().filter_map(|pod| pods::available_in(pod, min_ready, now));
    waits.filter(|wait| !wait.is_zero()).min().map(|wait| wait + Duration::from_millis(100))
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&kube::Error>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or_default();
    let template_labels = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels);
    let template_labels = template_labels.unwrap_or_default();
    let fully_labeled = active
        .iter()
        .filter(|p| selector::matches_map(&template_labels, p.metadata.labels.as_ref()));
    let old = set.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let failing = conditions.iter().position(|c| c.type_ == "ReplicaFailure");
    match (failure, failing) {
        (Some(error), None) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(
                if active.len() < usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0) {
                    "FailedCreate".to_owned()
                } else {
                    "FailedDelete".to_owned()
                },
            ),
            message: Some(pods::plain(error)),
            last_transition_time: Some(Time(now)),
        }),
        (None, Some(index)) => {
            conditions.remove(index);
        }
        _ => {}
    }
    let tally = |n: usize| (n > 0).then(|| count(n));
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: tally(fully_labeled.count()),
        ready_replicas: tally(active.iter().filter(|p| pods::is_ready(p)).count()),
        available_replicas: tally(
            active.iter().filter(|p| pods::is_available(p, min_ready, now)).count(),
        ),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_difference_decides() {
        assert_eq!(scale(3, 3), Scale::Keep);
        assert_eq!(scale(1, 3), Scale::Create(2));
        assert_eq!(scale(5, 3), Scale::Delete(2));
        assert_eq!(scale(0, 9000), Scale::Create(BURST));
    }

    #[tokio::test]
    async fn a_failing_creation_costs_few_requests() {
        let calls = Cell::new(0);
        let (made, result) =
            slow_start(100, || {
                calls.set(calls.get() + 1);
                let ok = calls.get() <= 1;
                async move {
                    if ok { Ok(()) } else { Err(kube::Error::LinesCodecMaxLineLengthExceeded) }
                }
            })
            .await;
        assert!(result.is_err());
        assert_eq!((made.len(), calls.get()), (1, 3));
    }

    #[test]
    fn status_counts_ready_and_available_pods() {
        let set: ReplicaSet = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "rs", "generation": 4},
            "spec": {"selector": {}, "minReadySeconds": 10, "template": {"metadata": {"labels": {"a": "b"}}}}
        }))
        .unwrap();
        let pod = |ready: &str, since: i64| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(serde_json::json!({
                    "metadata": {"labels": {"a": "b"}},
                    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready,
                        "lastTransitionTime": Time(Timestamp::from_second(since).unwrap())}]}
                }))
                .unwrap(),
            )
        };
        let pods = [pod("True", 80), pod("True", 95), pod("False", 0)];
        let now = Timestamp::from_second(100).unwrap();
        let status = status(&set, &pods, 1, None, now);
        assert_eq!(status.replicas, 3);
        assert_eq!(status.fully_labeled_replicas, Some(3));
        assert_eq!(status.ready_replicas, Some(2));
        assert_eq!(status.available_replicas, Some(1));
        assert_eq!(status.observed_generation, Some(4));
        let wait = next_availability(&pods, 10, now).unwrap();
        assert!(wait > Duration::from_secs(5) && wait < Duration::from_secs(6));
    }
}
