//! Pod garbage collection: removes pods whose node is gone, pods that were deleted before they had a
//! node, pods on nodes declared out of service, and the oldest of too many finished ones.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use component::{Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use serde_json::json;

use crate::context::{Context, Running, together};
use crate::pods::{self, BY_NODE};
use crate::writes::{Writer, code};

/// Time between full passes.
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must be gone before its pods are: it may only be registering again.
const QUARANTINE: Duration = Duration::from_secs(2);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let nodes = context.informer::<Node>();
    let cache = pods::informer(context);
    // Names of nodes that may be gone.
    let queue: Arc<WorkQueue<ObjectKey>> = Arc::new(WorkQueue::new());
    let wake = queue.clone();
    nodes.on_change(move |change| {
        if change.new.is_none() {
            wake.add_after(ObjectKey::of(change.latest().as_ref()), QUARANTINE);
        }
    });
    let collector = Arc::new(Collector {
        pods: Writer::new(context.client.clone(), cache),
        nodes,
        api: Api::all(context.client.clone()),
        threshold: context.config.terminated_pod_threshold,
        queue: queue.clone(),
    });
    let sweeper = collector.clone();
    Ok(Some(together(vec![
        context.work("pod-gc", queue, 2, move |key| {
            let collector = collector.clone();
            async move {
                collector.node_gone(&key.name).await?;
                Ok(None)
            }
        }),
        context.every(PERIOD, move || {
            let collector = sweeper.clone();
            async move { collector.sweep().await }
        }),
    ])))
}

struct Collector {
    pods: Writer<Pod>,
    nodes: Arc<Informer<Node>>,
    api: Api<Node>,
    threshold: usize,
    queue: Arc<WorkQueue<ObjectKey>>,
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reason {
    Orphaned,
    Unscheduled,
    OutOfService,
    Surplus,
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty())
}

/// Pods to remove at once, apart from those of vanished nodes.
fn choose(
    all: &[Arc<Pod>],
    out_of_service: &HashSet<String>,
    threshold: usize,
) -> Vec<(Arc<Pod>, Reason)> {
    let mut chosen = Vec::new();
    for pod in all.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
        match node_of(pod) {
            None => chosen.push((pod.clone(), Reason::Unscheduled)),
            Some(node) if out_of_service.contains(node) => {
                chosen.push((pod.clone(), Reason::OutOfService));
            }
            Some(_) => {}
        }
    }
    let mut finished: Vec<_> = all.iter().filter(|pod| pods::is_finished(pod)).cloned().collect();
    if threshold > 0 && finished.len() > threshold {
        finished.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let surplus = finished.len() - threshold;
        chosen.extend(finished.into_iter().take(surplus).map(|pod| (pod, Reason::Surplus)));
    }
    chosen
}

impl Collector {
    async fn sweep(&self) {
        let all = self.pods.cache().list();
        let homes: HashSet<_> = all.iter().filter_map(|pod| node_of(pod)).collect();
        for node in homes {
            if self.nodes.get_cluster(node).is_none() {
                self.queue.add_after(ObjectKey::new("", node), QUARANTINE);
            }
        }
        let tainted = |node: &Node| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
            taints.into_iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE)
        };
        let out_of_service = self
            .nodes
            .list()
            .iter()
            .filter(|node| tainted(node))
            .filter_map(|node| node.metadata.name.clone())
            .collect();
        for (pod, reason) in choose(&all, &out_of_service, self.threshold) {
            if let Err(error) = self.remove(&pod, reason).await {
                tracing::warn!(pod.name = ?pod.metadata.name, "could not remove a pod: {error}");
            }
        }
    }

    /// Removes the pods of a node, if the API server confirms that the node is gone.
    async fn node_gone(&self, node: &str) -> anyhow::Result<()> {
        let pods = self.pods.cache().by_index(BY_NODE, node);
        if pods.is_empty() || self.nodes.get_cluster(node).is_some() {
            return Ok(());
        }
        if self.api.get_metadata_opt(node).await?.is_some() {
            return Ok(());
        }
        tracing::info!(
            node.name = node,
            pods = pods.len(),
            "the node is gone, its pods are removed"
        );
        let removals = pods.iter().map(|pod| self.remove(pod, Reason::Orphaned));
        for result in futures::future::join_all(removals).await {
            result?;
        }
        Ok(())
    }

    async fn remove(&self, pod: &Pod, reason: Reason) -> Result<(), kube::Error> {
        if reason != Reason::Surplus && reason != Reason::Unscheduled && !pods::is_finished(pod) {
            let message = match reason {
                Reason::OutOfService => "PodGC: node is out of service",
                _ => "PodGC: node no longer exists",
            };
            let now = Time(Timestamp::now());
            let patch = json!({"status": {"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": message, "lastTransitionTime": now,
                "observedGeneration": pod.metadata.generation,
            }]}});
            match self.pods.patch_status(pod, patch, true).await {
                Ok(_) => {}
                Err(error) if code(&error) == 404 => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.pods.delete_with(pod, Some(0)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: Option<&str>, phase: &str, deleting: bool, created: i64) -> Arc<Pod> {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": Time(Timestamp::from_second(created).unwrap())},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}
        }))
        .unwrap();
        pod.metadata.deletion_timestamp = deleting.then_some(Time(Timestamp::UNIX_EPOCH));
        Arc::new(pod)
    }

    #[test]
    fn only_what_nobody_else_can_remove_is_chosen() {
        let pods = [
            pod("running", Some("a"), "Running", false, 1),
            pod("stopping", Some("a"), "Running", true, 1),
            pod("never-scheduled", None, "Pending", true, 1),
            pod("waiting", None, "Pending", false, 1),
            pod("broken-node", Some("b"), "Running", true, 1),
            pod("old", Some("a"), "Succeeded", false, 2),
            pod("newer", Some("a"), "Failed", false, 3),
        ];
        let out = HashSet::from(["b".to_owned()]);
        let chosen: Vec<_> = choose(&pods, &out, 1)
            .into_iter()
            .map(|(pod, reason)| (pod.metadata.name.clone().unwrap(), reason))
            .collect();
        assert_eq!(
            chosen,
            [
                ("never-scheduled".to_owned(), Reason::Unscheduled),
                ("broken-node".to_owned(), Reason::OutOfService),
                ("old".to_owned(), Reason::Surplus),
            ]
        );
    }
}
