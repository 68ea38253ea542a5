//! Node lifecycle: notices nodes that have gone silent, marks them and their pods as not ready, and
//! keeps the taints that follow from a node's conditions.
//!
//! A node lives when its Lease or its status is renewed. Only the local clock is trusted: what counts
//! is how long ago a *change* was seen. Actual eviction is the taint-eviction controller's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use component::workqueue::Requeue;
use component::{EventType, Informer, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::runtime::watcher;
use serde_json::json;

use crate::config::NodeMonitor;
use crate::context::{Context, Running, enqueue_changes, together};
use crate::pods::{self, BY_NODE};
use crate::writes::{Writer, code, ignore_missing};

mod health;
mod taints;

use health::{Probe, Verdict};

/// Namespace of the kubelets' leases.
const LEASES: &str = "kube-node-lease";

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let nodes = context.informer::<Node>();
    let cache = pods::informer(context);
    let leases = Api::<Lease>::namespaced(context.manager.client.clone(), LEASES);
    let leases = Arc::new(Informer::new(leases, watcher::Config::default()));
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&nodes, &queue);
    // A pod that lands on a node already known to be silent must not look ready.
    let monitor = Arc::new(Monitor {
        nodes: Writer::new(context.client.clone(), nodes.clone()),
        pods: Writer::new(context.client.clone(), cache),
        leases: leases.clone(),
        recorder: context.recorder("node-controller"),
        timing: context.config.node_monitor.clone(),
        probes: Mutex::new(HashMap::new()),
    });
    let (tick, wake) = (monitor.clone(), queue.clone());
    let shutdown = context.shutdown.clone();
    Ok(Some(together(vec![
        Box::pin(async move {
            leases.start(shutdown.clone());
            shutdown.cancelled().await;
        }),
        context.every(context.config.node_monitor.period, move || {
            let (tick, wake) = (tick.clone(), wake.clone());
            async move {
                for node in tick.nodes.cache().list() {
                    wake.add(ObjectKey::of(node.as_ref()));
                }
            }
        }),
        context.work("node-lifecycle", queue, 4, move |key| {
            let monitor = monitor.clone();
            async move {
                monitor.leases.wait_synced().await;
                monitor.sync(&key).await
            }
        }),
    ])))
}

struct Monitor {
    nodes: Writer<Node>,
    pods: Writer<Pod>,
    leases: Arc<Informer<Lease>>,
    recorder: Recorder,
    timing: NodeMonitor,
    /// What was last seen of each node, by name.
    probes: Mutex<HashMap<String, Probe>>,
}

/// A condition of the node.
pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// The status of the node's Ready condition, `Unknown` when there is none.
pub(super) fn readiness(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |condition| condition.status.as_str())
}

impl Monitor {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let Some(node) = self.nodes.cache().get(key) else {
            self.probes.lock().expect("no code panics while it holds this lock").remove(&key.name);
            return Ok(None);
        };
        let lease = self.leases.get(&ObjectKey::new(LEASES, key.name.as_str()));
        let verdict = {
            let mut probes = self.probes.lock().expect("no code panics while it holds this lock");
            health::judge(&mut probes, &node, lease.as_deref(), &self.timing, Instant::now())
        };
        let mut node = node;
        let mut requeue = None;
        match verdict {
            Verdict::Alive { look_again } => requeue = Some(look_again),
            Verdict::Silent => {
                let marked = health::mark_unknown(&node, Timestamp::now());
                if let Some(marked) = marked {
                    tracing::warn!(node.name = %key.name, "the node has gone silent");
                    match ignore_missing(self.nodes.replace_status(&marked).await)? {
                        Some(fresh) => node = fresh,
                        None => return Ok(None),
                    }
                }
            }
        }
        node = self.apply_taints(node).await?;
        if readiness(&node) != "True" {
            self.mark_pods(&node).await?;
        }
        Ok(requeue)
    }

    /// Writes the taints that follow from the node's conditions.
    async fn apply_taints(&self, node: Arc<Node>) -> anyhow::Result<Arc<Node>> {
        // When nobody answers, the fault is likely here and not with every node: nothing is evicted.
        let all = self.nodes.cache().list();
        let anyone_ready = all.iter().any(|other| readiness(other) == "True");
        let wanted = taints::wanted(&node, anyone_ready, Timestamp::now());
        let current = component::placement::taints(&node);
        if taints::same(current, &wanted) {
            return Ok(node);
        }
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": wanted},
        });
        Ok(self.nodes.patch(&node, patch).await?)
    }

    /// Takes a silent node's pods out of their Services.
    async fn mark_pods(&self, node: &Node) -> anyhow::Result<()> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let ready: Vec<_> = self
            .pods
            .cache()
            .by_index(BY_NODE, name)
            .into_iter()
            .filter(|pod| pods::is_ready(pod) && !pods::is_finished(pod))
            .collect();
        // A node that says itself that it is not ready still reports its pods.
        if readiness(node) == "False" || ready.is_empty() {
            return Ok(());
        }
        for pod in ready {
            let now = Time(Timestamp::now());
            let patch = json!({"status": {"conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": now},
            ]}});
            match self.pods.patch_status(&pod, patch, true).await {
                Ok(_) => {}
                Err(error) if matches!(code(&error), 404 | 409) => {}
                Err(error) => return Err(error.into()),
            }
            let message = "Node is not ready".to_owned();
            self.recorder.event(pod.as_ref(), EventType::Warning, "NodeNotReady", message);
        }
        Ok(())
    }
}
