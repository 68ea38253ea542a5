//! Taint eviction: deletes pods from nodes with `NoExecute` taints that they do not tolerate, or no
//! longer tolerate.

use std::sync::Arc;
use std::time::Duration;

use component::placement::tolerates;
use component::workqueue::Requeue;
use component::{EventType, Informer, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::context::{Context, Running, enqueue_changes};
use crate::pods::{self, BY_NODE};
use crate::writes::{Writer, code};

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let nodes = context.informer::<Node>();
    let cache = pods::informer(context);
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&cache, &queue);
    let (wake, residents) = (queue.clone(), cache.clone());
    nodes.on_change(move |change| {
        let taints = |node: Option<&Arc<Node>>| node.map(|node| no_execute(node));
        if taints(change.old) != taints(change.new) {
            let name = change.latest().metadata.name.as_deref().unwrap_or_default();
            for pod in residents.by_index(BY_NODE, name) {
                wake.add(ObjectKey::of(pod.as_ref()));
            }
        }
    });
    let evictor = Arc::new(Evictor {
        pods: Writer::new(context.client.clone(), cache),
        nodes,
        recorder: context.recorder("taint-eviction-controller"),
    });
    Ok(Some(context.work("taint-eviction", queue, 4, move |key| {
        let evictor = evictor.clone();
        async move { evictor.sync(&key).await }
    })))
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    taints.into_iter().filter(|taint| taint.effect == "NoExecute").collect()
}

/// When a pod has to go.
#[derive(Debug, PartialEq)]
enum Verdict {
    Stay,
    Leave,
    LeaveAt(Timestamp),
}

fn verdict(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Verdict {
    let mut deadline: Option<Timestamp> = None;
    for taint in taints {
        let covering: Vec<_> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if covering.is_empty() {
            return Verdict::Leave;
        }
        // Of several tolerations for one taint, the shortest counts; none means for ever.
        let Some(seconds) = covering.iter().filter_map(|t| t.toleration_seconds).min() else {
            continue;
        };
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let until = since.saturating_add(jiff::SignedDuration::from_secs(seconds.max(0)));
        let until = until.unwrap_or(Timestamp::MAX);
        deadline = Some(deadline.map_or(until, |other| other.min(until)));
    }
    match deadline {
        None => Verdict::Stay,
        Some(at) if at <= now => Verdict::Leave,
        Some(at) => Verdict::LeaveAt(at),
    }
}

struct Evictor {
    pods: Writer<Pod>,
    nodes: Arc<Informer<Node>>,
    recorder: Recorder,
}

impl Evictor {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let Some(pod) = self.pods.cache().get(key) else { return Ok(None) };
        let Some(spec) = &pod.spec else { return Ok(None) };
        if pod.metadata.deletion_timestamp.is_some() || pods::is_finished(&pod) {
            return Ok(None);
        }
        let node = spec.node_name.as_deref().and_then(|name| self.nodes.get_cluster(name));
        let Some(node) = node else { return Ok(None) };
        let tolerations = spec.tolerations.as_deref().unwrap_or_default();
        let now = Timestamp::now();
        match verdict(&no_execute(&node), tolerations, now) {
            Verdict::Stay => Ok(None),
            Verdict::LeaveAt(at) => {
                let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                Ok(Some(wait + Duration::from_millis(50)))
            }
            Verdict::Leave => {
                self.evict(&pod).await?;
                Ok(None)
            }
        }
    }

    async fn evict(&self, pod: &Pod) -> Result<(), kube::Error> {
        let key = ObjectKey::of(pod);
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.event(pod, EventType::Normal, "TaintManagerEviction", message);
        let patch = json!({"status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Time(Timestamp::now()),
            "observedGeneration": pod.metadata.generation,
        }]}});
        match self.pods.patch_status(pod, patch, true).await {
            Ok(_) => {}
            Err(error) if code(&error) == 404 => return Ok(()),
            Err(error) => return Err(error),
        }
        tracing::info!(pod = %key, "evicted because of a NoExecute taint");
        self.pods.delete(pod).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, added: i64) -> Taint {
        Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(Timestamp::from_second(added).unwrap())),
            value: None,
        }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: seconds,
            value: None,
        }
    }

    #[test]
    fn the_shortest_toleration_decides_when_a_pod_leaves() {
        let now = Timestamp::from_second(1000).unwrap();
        let at = |second| Verdict::LeaveAt(Timestamp::from_second(second).unwrap());
        let taints = [taint("unreachable", 900)];
        assert_eq!(verdict(&[], &[], now), Verdict::Stay);
        assert_eq!(verdict(&taints, &[], now), Verdict::Leave);
        assert_eq!(verdict(&taints, &[toleration("unreachable", None)], now), Verdict::Stay);
        assert_eq!(verdict(&taints, &[toleration("unreachable", Some(300))], now), at(1200));
        assert_eq!(verdict(&taints, &[toleration("unreachable", Some(100))], now), Verdict::Leave);
        let both = [toleration("unreachable", Some(300)), toleration("", Some(200))];
        assert_eq!(verdict(&taints, &both, now), at(1100));
    }
}
