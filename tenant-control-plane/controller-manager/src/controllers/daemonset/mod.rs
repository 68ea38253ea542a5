//! DaemonSet: one pod on every node that fits.

use std::sync::Arc;
use std::time::Duration;

use component::workqueue::Requeue;
use component::{EventType, Informer, ObjectKey, WorkQueue, selector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::context::{Context, Running, enqueue_changes};
use crate::pods::{self, PodControl};
use crate::revisions;
use crate::writes::{Writer, ignore_missing, namespace_is_terminating};

mod placement;
mod plan;

use plan::{Plan, World};

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let sets = context.informer::<DaemonSet>();
    let nodes = context.informer::<Node>();
    let history = context.informer::<ControllerRevision>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&sets, &queue);
    let (all, wake) = (sets.clone(), queue.clone());
    nodes.on_change(move |change| {
        let faces = |node: Option<&Arc<Node>>| node.map(|node| placement::face(node));
        if faces(change.old) != faces(change.new) {
            for set in all.list() {
                wake.add(ObjectKey::of(set.as_ref()));
            }
        }
    });
    let candidates = sets.clone();
    pods::enqueue_controllers(&pods::informer(context), "DaemonSet", &queue, move |pod| {
        selecting(&candidates, pod)
    });
    let controller = Arc::new(Controller {
        writer: Writer::new(context.client.clone(), sets),
        history: Writer::new(context.client.clone(), history),
        nodes,
        pods: PodControl::new(context, "daemonset-controller"),
    });
    let workers = context.config.workers.daemonset;
    Ok(Some(context.work("daemonset", queue, workers, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })))
}

fn selecting(sets: &Informer<DaemonSet>, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let labels = pod.metadata.labels.as_ref();
    let matching = sets.list_namespace(namespace).into_iter().filter(|set| {
        set.spec.as_ref().is_some_and(|spec| selector::matches(&spec.selector, labels))
    });
    matching.map(|set| ObjectKey::of(set.as_ref())).collect()
}

struct Controller {
    writer: Writer<DaemonSet>,
    history: Writer<ControllerRevision>,
    nodes: Arc<Informer<Node>>,
    pods: PodControl,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let Some(set) = self.writer.cache().get(key) else { return Ok(None) };
        let Some(spec) = &set.spec else { return Ok(None) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let known = revisions::list(&self.history, set.as_ref(), &spec.selector).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let made =
            revisions::ensure(&self.history, set.as_ref(), &spec.template, &known, collisions)
                .await;
        let current = match made {
            Err(error) if namespace_is_terminating(&error) => return Ok(None),
            other => other?,
        };
        let hash = revisions::hash(&current);
        let world = World {
            nodes: self.nodes.list(),
            pods: self.pods.claim(set.as_ref(), &spec.selector).await?,
            hash: hash.clone(),
            now: Timestamp::now(),
        };
        let plan = plan::plan(&set, &world);
        self.tidy_history(&set, &known, &world).await?;
        let result = self.carry_out(&set, &plan, &hash).await;
        // The status tells of what was just done, as far as the cache knows.
        let world = World { pods: self.pods.claim(set.as_ref(), &spec.selector).await?, ..world };
        let status = plan::status(&set, &world);
        if set.status.as_ref() != Some(&status) {
            let mut updated = set.as_ref().clone();
            updated.status = Some(status);
            ignore_missing(self.writer.replace_status(&updated).await)?;
        }
        match result {
            Err(error) if namespace_is_terminating(&error) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(()) if plan.failed => Ok(Some(Duration::from_secs(1))),
            Ok(()) => Ok(plan.requeue),
        }
    }

    async fn carry_out(&self, set: &DaemonSet, plan: &Plan, hash: &str) -> Result<(), kube::Error> {
        for pod in &plan.delete {
            if pods::phase(pod) == "Failed" {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                let message = format!(
                    "Found failed daemon pod {}/{} on node {}, will try to kill it",
                    pod.metadata.namespace.as_deref().unwrap_or_default(),
                    pod.metadata.name.as_deref().unwrap_or_default(),
                    node.unwrap_or_default(),
                );
                self.pods.recorder().event(set, EventType::Warning, "FailedDaemonPod", message);
            }
            self.pods.delete(set, pod).await?;
        }
        let fresh: Vec<_> =
            plan.create.iter().map(|node| placement::pod_for(set, node, hash)).collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let (_, result) = super::replicaset::slow_start(fresh.len(), || {
            let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // After a failure the batch ends, so the index never passes the end.
            self.pods.create(set, &fresh[index.min(fresh.len() - 1)])
        })
        .await;
        result
    }

    async fn tidy_history(
        &self,
        set: &DaemonSet,
        known: &[Arc<ControllerRevision>],
        world: &World,
    ) -> Result<(), kube::Error> {
        let in_use = |revision: &ControllerRevision| {
            let hash = revisions::hash(revision);
            hash == world.hash
                || world.pods.iter().any(|pod| plan::hash_of(pod) == Some(hash.as_str()))
        };
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        for revision in revisions::surplus(known, in_use, limit) {
            self.history.delete(&revision).await?;
        }
        Ok(())
    }
}
