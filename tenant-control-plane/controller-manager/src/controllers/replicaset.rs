//! ReplicaSet and ReplicationController: as many pods as `spec.replicas` says.

use std::sync::Arc;
use std::time::Duration;

use component::workqueue::Requeue;
use component::{Informer, ObjectKey, WorkQueue, selector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::context::{Context, Running, enqueue_changes};
use crate::pods::{self, PodControl};
use crate::writes::{Writer, code, namespace_is_terminating};

mod kinds;
mod ranking;

use kinds::{Replicated, Wanted};
pub use ranking::order_for_deletion;

/// Most pods created or deleted in one pass.
const BURST: usize = 500;

/// Registers the controller of ReplicaSets.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    Ok(Some(run::<ReplicaSet>(context, "replicaset", context.config.workers.replicaset)))
}

/// Registers the controller of ReplicationControllers.
///
/// # Errors
/// Never.
pub fn start_elder(context: &Context) -> anyhow::Result<Option<Running>> {
    let workers = context.config.workers.replicaset;
    Ok(Some(run::<ReplicationController>(context, "replicationcontroller", workers)))
}

fn run<S: Replicated>(context: &Context, name: &'static str, workers: usize) -> Running {
    let sets = context.informer::<S>();
    sets.add_index(crate::owners::BY_CONTROLLER, crate::owners::controller_keys);
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&sets, &queue);
    let candidates = sets.clone();
    pods::enqueue_controllers(&pods::informer(context), S::KIND, &queue, move |pod| {
        selecting(&candidates, pod)
    });
    let controller = Arc::new(Controller {
        writer: Writer::new(context.client.clone(), sets),
        pods: PodControl::new(context, S::CONTROLLER),
    });
    context.work(name, queue, workers, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })
}

/// Sets whose selector matches an orphan.
fn selecting<S: Replicated>(sets: &Informer<S>, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let labels = pod.metadata.labels.as_ref();
    let matching = sets.list_namespace(namespace).into_iter().filter(|set| {
        set.wanted().is_some_and(|wanted| selector::matches(&wanted.selector, labels))
    });
    matching.map(|set| ObjectKey::of(set.as_ref())).collect()
}

struct Controller<S> {
    writer: Writer<S>,
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

impl<S: Replicated> Controller<S> {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let Some(set) = self.writer.cache().get(key) else { return Ok(None) };
        let Some(wanted) = set.wanted() else { return Ok(None) };
        let owned = self.pods.claim(set.as_ref(), &wanted.selector).await?;
        let mut active: Vec<_> = owned.iter().filter(|p| pods::is_active(p)).cloned().collect();
        let mut failure = None;
        if set.meta().deletion_timestamp.is_none() {
            failure = self.manage(set.as_ref(), &wanted, &mut active).await.err();
        }
        let now = Timestamp::now();
        let terminating = owned
            .iter()
            .filter(|p| p.metadata.deletion_timestamp.is_some() && !pods::is_finished(p))
            .count();
        let old = set.status();
        let mut status = status(&wanted, old, &active, failure.as_ref(), now);
        status.terminating_replicas = Some(count(terminating));
        status.observed_generation = set.meta().generation;
        self.write_status(set.as_ref(), status).await?;
        match failure {
            Some(error) if namespace_is_terminating(&error) => Ok(None),
            Some(error) => Err(error.into()),
            None => Ok(next_availability(&active, wanted.min_ready, now)),
        }
    }

    async fn manage(
        &self,
        set: &S,
        wanted: &Wanted,
        active: &mut Vec<Arc<Pod>>,
    ) -> Result<(), kube::Error> {
        match scale(active.len(), wanted.replicas) {
            Scale::Keep => Ok(()),
            Scale::Create(count) => {
                let prefix = set.meta().name.as_deref().unwrap_or_default();
                let pod = pods::from_template(&wanted.template, set, prefix);
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

    /// Pods of all sets with the same controller: during a rolling update, a node that has
    /// several of them loses one first.
    fn related(&self, set: &S) -> Vec<Arc<Pod>> {
        let cache = self.writer.cache();
        let siblings = match crate::owners::controller_of(set.meta()) {
            Some(owner) => cache.by_index(crate::owners::BY_CONTROLLER, &owner.uid),
            None => vec![Arc::new(set.clone())],
        };
        let uids = siblings.iter().filter_map(|sibling| sibling.meta().uid.as_deref());
        uids.flat_map(|uid| self.pods.cache().by_index(crate::owners::BY_CONTROLLER, uid)).collect()
    }

    async fn write_status(&self, set: &S, status: ReplicaSetStatus) -> anyhow::Result<()> {
        let updated = set.with_status(status);
        // Compared as the kind stores it.
        if set.status() == updated.status() {
            return Ok(());
        }
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
    wanted: &Wanted,
    old: ReplicaSetStatus,
    active: &[Arc<Pod>],
    failure: Option<&kube::Error>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let template_labels = wanted.template.metadata.clone().and_then(|meta| meta.labels);
    let template_labels = template_labels.unwrap_or_default();
    let fully_labeled = active
        .iter()
        .filter(|p| selector::matches_map(&template_labels, p.metadata.labels.as_ref()));
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let failing = conditions.iter().position(|c| c.type_ == "ReplicaFailure");
    let too_few = active.len() < usize::try_from(wanted.replicas).unwrap_or(0);
    match (failure, failing) {
        (Some(error), None) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(if too_few { "FailedCreate" } else { "FailedDelete" }.to_owned()),
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
            active.iter().filter(|p| pods::is_available(p, wanted.min_ready, now)).count(),
        ),
        conditions: (!conditions.is_empty()).then_some(conditions),
        ..old
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
            "metadata": {"name": "rs"},
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
        let wanted = set.wanted().unwrap();
        let status = status(&wanted, Replicated::status(&set), &pods, None, now);
        assert_eq!(status.replicas, 3);
        assert_eq!(status.fully_labeled_replicas, Some(3));
        assert_eq!(status.ready_replicas, Some(2));
        assert_eq!(status.available_replicas, Some(1));
        let wait = next_availability(&pods, 10, now).unwrap();
        assert!(wait > Duration::from_secs(5) && wait < Duration::from_secs(6));
    }
}
