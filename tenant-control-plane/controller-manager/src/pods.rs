//! What several controllers need to know and do about pods.

use std::sync::Arc;
use std::time::Duration;

use component::{EventType, Informer, Object, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;

use crate::context::Context;
use crate::owners;
use crate::writes::{Result, Writer, code, namespace_is_terminating, reason};

/// Index of the pod cache by `spec.nodeName`.
pub const BY_NODE: &str = "node";

/// The pod cache with its indexes.
pub fn informer(context: &Context) -> Arc<Informer<Pod>> {
    let pods = context.informer::<Pod>();
    pods.add_index(owners::BY_CONTROLLER, owners::controller_keys);
    pods.add_index(BY_NODE, |pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).into_iter().collect()
    });
    pods
}

/// `status.phase`, empty when it is not set yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// True when all containers have ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// True while the pod counts as a replica: not finished and not being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// A condition of the pod.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// True when the pod serves.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when the pod is ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// True when the pod has been ready for `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_in(pod, min_ready_seconds, now) == Some(Duration::ZERO)
}

/// How long until a ready pod counts as available; zero when it does, `None` when it is not ready.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    let Ok(needed) = u64::try_from(min_ready_seconds) else { return Some(Duration::ZERO) };
    if needed == 0 {
        return Some(Duration::ZERO);
    }
    let ready_for = Duration::try_from(now.duration_since(ready_since(pod)?)).unwrap_or_default();
    Some(Duration::from_secs(needed).saturating_sub(ready_for))
}

/// Restarts of all containers together.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or_default()
}

/// A pod from a template, controlled by `owner`, named by the server after `prefix`.
pub fn from_template<O: Object>(template: &PodTemplateSpec, owner: &O, prefix: &str) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: owner.meta().namespace.clone(),
            generate_name: Some(generate_name(prefix)),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owners::controller_reference(owner)]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `web-` for `web`, or the bare name when the result could not start a pod's name.
fn generate_name(prefix: &str) -> String {
    let dashed = format!("{prefix}-");
    // 63 characters of name, 5 of which the server adds.
    if dashed.len() <= 58 { dashed } else { prefix.to_owned() }
}

/// Creates and deletes pods for one controller, and says so in events.
#[derive(Clone)]
pub struct PodControl {
    writer: Writer<Pod>,
    recorder: Recorder,
    /// What an adopted pod is given along with its owner.
    finalizer: Option<&'static str>,
}

impl PodControl {
    /// Pod control that signs its events as `controller`.
    pub fn new(context: &Context, controller: &str) -> Self {
        let writer = Writer::new(context.client.clone(), informer(context));
        Self { writer, recorder: context.recorder(controller), finalizer: None }
    }

    /// The same, which puts a finalizer on the pods that it adopts.
    pub fn adopting_with(self, finalizer: &'static str) -> Self {
        Self { finalizer: Some(finalizer), ..self }
    }

    /// The recorder.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The pod cache.
    pub fn cache(&self) -> &Informer<Pod> {
        self.writer.cache()
    }

    /// The writer, for what creation and deletion do not cover.
    pub fn writer(&self) -> &Writer<Pod> {
        &self.writer
    }

    /// Creates a pod of the owner.
    ///
    /// # Errors
    /// As the API server answers; an event on the owner tells users why.
    pub async fn create<O: Object>(&self, owner: &O, pod: &Pod) -> Result<Arc<Pod>> {
        match self.writer.create(pod).await {
            Ok(made) => {
                let name = made.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Created pod: {name}");
                self.recorder.event(owner, EventType::Normal, "SuccessfulCreate", message);
                Ok(made)
            }
            Err(error) => {
                // A pod of the same name is still going away, which is no news.
                let is_taken = reason(&error) == "AlreadyExists";
                if !is_taken && !namespace_is_terminating(&error) {
                    let message = format!("Error creating: {}", plain(&error));
                    self.recorder.event(owner, EventType::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    /// Deletes a pod of the owner.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn delete<O: Object>(&self, owner: &O, pod: &Pod) -> Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match self.writer.delete(pod).await {
            Ok(()) => {
                let message = format!("Deleted pod: {name}");
                self.recorder.event(owner, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) => {
                let message = format!("Error deleting: {}", plain(&error));
                self.recorder.event(owner, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    /// The pods that the owner controls after adopting and releasing as its selector says.
    ///
    /// # Errors
    /// As the API server answers to an adoption or release.
    pub async fn claim<O: Object + Serialize>(
        &self,
        owner: &O,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<Pod>>> {
        self.claim_members(owner, selector, |_| true).await
    }

    /// The same for an owner that leaves pods alone which are no `is_member`.
    ///
    /// # Errors
    /// As [`PodControl::claim`].
    pub async fn claim_members<O: Object + Serialize>(
        &self,
        owner: &O,
        selector: &LabelSelector,
        is_member: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>> {
        let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
        let mut candidates = self.cache().list_namespace(namespace);
        candidates.retain(|pod| is_member(pod));
        claim_with(&self.writer, owner, selector, candidates, self.finalizer).await
    }
}

/// Adopts and releases objects of any kind; returns those controlled by the owner afterwards.
///
/// The cache may still show an owner that is gone or is being deleted: before it adopts anything,
/// the API server is asked.
///
/// # Errors
/// As the API server answers, except that objects that vanished or changed hands are left alone.
/// A conflict when the owner must not adopt any more.
pub async fn claim_with<T: Object + Serialize, O: Object>(
    writer: &Writer<T>,
    owner: &O,
    selector: &LabelSelector,
    candidates: Vec<Arc<T>>,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<T>>> {
    let claims = owners::claim(owner, selector, candidates);
    let mut owned = claims.owned;
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    for object in claims.release {
        let patch = owners::release_patch(object.as_ref(), uid);
        match writer.patch(&object, patch).await {
            Ok(_) => {}
            Err(error) if matches!(code(&error), 404 | 409 | 422) => {}
            Err(error) => return Err(error),
        }
    }
    if !claims.adopt.is_empty() {
        owners::may_adopt(owner, writer.live_meta(owner).await?.as_ref())?;
    }
    for object in claims.adopt {
        let patch = owners::adoption_patch(object.as_ref(), owner, finalizer);
        match writer.patch(&object, patch).await {
            Ok(adopted) => owned.push(adopted),
            Err(error) if matches!(code(&error), 404 | 409 | 422) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(owned)
}

/// The API server's message, without the wrapping of the client library.
pub fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Queues the controller of each changed pod (and the former one, when it changed hands); for a pod
/// without a controller, queues what `orphan` finds.
pub fn enqueue_controllers(
    pods: &Informer<Pod>,
    kind: &'static str,
    queue: &Arc<WorkQueue<ObjectKey>>,
    orphan: impl Fn(&Pod) -> Vec<ObjectKey> + Send + Sync + 'static,
) {
    let queue = queue.clone();
    pods.on_change(move |change| {
        let mut controlled = false;
        for pod in [change.old, change.new].into_iter().flatten() {
            if let Some(owner) = owners::controller_of(&pod.metadata) {
                controlled = true;
                if owner.kind == kind {
                    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                    queue.add(ObjectKey::new(namespace, owner.name.clone()));
                }
            }
        }
        if !controlled && let Some(pod) = change.new {
            for key in orphan(pod) {
                queue.add(key);
            }
        }
    });
}
