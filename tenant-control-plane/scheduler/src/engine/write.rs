//! What the scheduler writes: bindings, conditions, nominations, evictions, events.

use std::sync::Arc;

use component::metrics as record;
use component::{EventType, Recorder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{Message, Sender};
use crate::metrics;
use crate::pod::{PREEMPTED, PodInfo};
use crate::queue::Taken;

/// Writes in tasks of its own, and tells the engine of failures.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    recorder: Recorder,
    engine: Sender,
}

fn is(error: &kube::Error, wanted: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == wanted)
}

impl Writer {
    /// A writer over a client.
    pub fn new(client: Client, recorder: Recorder, engine: Sender) -> Self {
        Self { client, recorder, engine }
    }

    fn pods(&self, pod: &PodInfo) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }

    /// Binds the pod to the node.
    pub fn bind(&self, taken: Taken, node: String) {
        let this = self.clone();
        tokio::spawn(async move {
            let pod = &taken.pod;
            match this.post_binding(pod, &node).await {
                Ok(()) => {
                    let waited = taken.first_seen.elapsed();
                    record::observe(metrics::UNTIL_BOUND, &[], waited);
                    let message =
                        format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
                    this.recorder.event(pod.pod.as_ref(), EventType::Normal, "Scheduled", message);
                    tracing::info!(
                        pod = %format_args!("{}/{}", pod.namespace, pod.name), node.name = %node,
                        waited_ms = waited.as_millis() as u64, "bound"
                    );
                }
                Err(error) => {
                    // Gone, or bound by somebody else: the watch will say so.
                    let moot = is(&error, 404);
                    if !moot {
                        record::count(metrics::ATTEMPTS, &[("result", "error")]);
                        tracing::warn!(pod.name = %pod.name, "binding failed: {error}");
                    }
                    let _ = this.engine.send(Message::BindFailed(pod.uid.clone()));
                }
            }
        });
    }

    async fn post_binding(&self, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(pod.uid.clone()),
                ..Default::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..Default::default()
            },
        };
        let api = self.pods(pod);
        let params = PostParams::default();
        // The answer is a Status.
        let _: Value = api.create_subresource("binding", &pod.name, &params, &binding).await?;
        Ok(())
    }

    /// Says why the pod has no node and where it is expected, and makes others leave for it.
    pub fn report(
        &self,
        pod: Arc<PodInfo>,
        message: String,
        nominated: Option<String>,
        victims: Vec<Arc<PodInfo>>,
    ) {
        let this = self.clone();
        tokio::spawn(async move {
            this.recorder.event(
                pod.pod.as_ref(),
                EventType::Warning,
                "FailedScheduling",
                message.clone(),
            );
            if let Err(error) = this.patch_condition(&pod, &message, nominated).await
                && !is(&error, 404)
            {
                tracing::debug!(pod.name = %pod.name, "could not write the condition: {error}");
            }
            for victim in &victims {
                if let Err(error) = this.evict(&pod, victim).await {
                    tracing::warn!(pod.name = %victim.name, "could not evict: {error}");
                    let _ = this.engine.send(Message::EvictFailed(pod.uid.clone()));
                    return;
                }
            }
        });
    }

    async fn patch_condition(
        &self,
        pod: &PodInfo,
        message: &str,
        nominated: Option<String>,
    ) -> Result<(), kube::Error> {
        let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let held = conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled");
        let same = held.is_some_and(|held| {
            held.status == "False"
                && held.reason.as_deref() == Some("Unschedulable")
                && held.message.as_deref() == Some(message)
        });
        if same && nominated.as_deref() == pod.nominated() {
            return Ok(());
        }
        let since = held
            .filter(|held| held.status == "False")
            .and_then(|held| held.last_transition_time.clone())
            .unwrap_or_else(|| Time(Timestamp::now()));
        let mut status = json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message, "lastTransitionTime": since,
        }]});
        if nominated.as_deref() != pod.nominated() {
            status["nominatedNodeName"] = json!(nominated);
        }
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid}, "status": status}));
        self.pods(pod).patch_status(&pod.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn evict(&self, preemptor: &PodInfo, victim: &PodInfo) -> Result<(), kube::Error> {
        let api = self.pods(victim);
        let message =
            format!("{}: preempting to accommodate a higher priority pod", super::SCHEDULER_NAME);
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": victim.uid},
            "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": PREEMPTED,
                "message": message, "lastTransitionTime": Time(Timestamp::now()),
            }]}
        }));
        match api.patch_status(&victim.name, &PatchParams::default(), &patch).await {
            Ok(_) => {}
            Err(error) if is(&error, 404) || is(&error, 409) => return Ok(()),
            Err(error) => return Err(error),
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(victim.uid.clone()),
                resource_version: None,
            }),
            ..Default::default()
        };
        match api.delete(&victim.name, &params).await {
            Ok(_) => {}
            Err(error) if is(&error, 404) || is(&error, 409) => return Ok(()),
            Err(error) => return Err(error),
        }
        let node = victim.node().unwrap_or_default();
        let message = format!("Preempted by pod {} on node {node}", preemptor.uid);
        self.recorder.event(victim.pod.as_ref(), EventType::Normal, "Preempted", message);
        Ok(())
    }
}
