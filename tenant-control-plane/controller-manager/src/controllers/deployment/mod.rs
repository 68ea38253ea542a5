//! Deployment: rolls pods from one template to the next by scaling ReplicaSets.
//!
//! [`plan::plan`] decides, from the Deployment and its ReplicaSets, which writes come next; this
//! file carries them out. Each pass makes one step; the changed ReplicaSets bring the Deployment
//! back for the next one.

use std::sync::Arc;

use component::workqueue::Requeue;
use component::{EventType, ObjectKey, Recorder, WorkQueue, selector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::context::{Context, Running, enqueue_changes};
use crate::owners;
use crate::pods;
use crate::writes::{Writer, code, ignore_missing, namespace_is_terminating};

mod annotations;
pub mod plan;
mod rollout;
mod scaling;
mod status;
mod template;
#[cfg(test)]
mod tests;

use plan::{Change, World};
pub use template::fnv_name;

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let deployments = context.informer::<Deployment>();
    let sets = context.informer::<ReplicaSet>();
    sets.add_index(owners::BY_CONTROLLER, owners::controller_keys);
    let pod_cache = pods::informer(context);
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&deployments, &queue);
    let (candidates, wake) = (deployments.clone(), queue.clone());
    sets.on_change(move |change| {
        for set in [change.old, change.new].into_iter().flatten() {
            let namespace = set.metadata.namespace.clone().unwrap_or_default();
            match owners::controller_of(&set.metadata) {
                Some(owner) if owner.kind == "Deployment" => {
                    wake.add(ObjectKey::new(namespace, owner.name.clone()));
                }
                Some(_) => {}
                None => {
                    let labels = set.metadata.labels.as_ref();
                    for deployment in candidates.list_namespace(&namespace) {
                        let spec = deployment.spec.as_ref();
                        if spec.is_some_and(|spec| selector::matches(&spec.selector, labels)) {
                            wake.add(ObjectKey::of(deployment.as_ref()));
                        }
                    }
                }
            }
        }
    });
    // A Recreate rollout waits for the last old pod to go.
    let (owners_of_pods, wake) = (sets.clone(), queue.clone());
    pod_cache.on_change(move |change| {
        let gone = change.old.filter(|_| change.new.is_none());
        if let Some(key) = gone.and_then(|pod| deployment_of(&owners_of_pods, pod)) {
            wake.add(key);
        }
    });
    let controller = Arc::new(Controller {
        deployments: Writer::new(context.client.clone(), deployments),
        sets: Writer::new(context.client.clone(), sets),
        pods: pod_cache,
        recorder: context.recorder("deployment-controller"),
    });
    let workers = context.config.workers.deployment;
    Ok(Some(context.work("deployment", queue, workers, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })))
}

fn deployment_of(sets: &component::Informer<ReplicaSet>, pod: &Pod) -> Option<ObjectKey> {
    let owner = owners::controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet")?;
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let set = sets.get(&ObjectKey::new(namespace.clone(), owner.name.clone()))?;
    let owner = owners::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
    Some(ObjectKey::new(namespace, owner.name.clone()))
}

/// A patch that fails when the ReplicaSet is no longer the one that was seen.
fn guarded(set: &ReplicaSet, annotations: &annotations::Annotations, spec: Value) -> Value {
    let mut patch = json!({"metadata": {"annotations": annotations}, "spec": spec});
    if let Some(version) = &set.metadata.resource_version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    patch
}

struct Controller {
    deployments: Writer<Deployment>,
    sets: Writer<ReplicaSet>,
    pods: Arc<component::Informer<Pod>>,
    recorder: Recorder,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let Some(deployment) = self.deployments.cache().get(key) else { return Ok(None) };
        let Some(spec) = &deployment.spec else { return Ok(None) };
        let empty = spec.selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
            && spec.selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
        if empty {
            let message =
                "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(
                deployment.as_ref(),
                EventType::Warning,
                "SelectingAll",
                message.to_owned(),
            );
            return Ok(None);
        }
        let candidates = self.sets.cache().list_namespace(&key.namespace);
        let owned =
            pods::claim_with(&self.sets, deployment.as_ref(), &spec.selector, candidates, None)
                .await?;
        let has_pods = |set: &ReplicaSet| {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let pods = self.pods.by_index(owners::BY_CONTROLLER, uid);
            pods.iter().any(|pod| !pods::is_finished(pod))
        };
        let world = World {
            with_pods: owned
                .iter()
                .filter(|set| has_pods(set))
                .filter_map(|set| set.metadata.uid.clone())
                .collect(),
            sets: owned.iter().map(|set| set.as_ref().clone()).collect(),
            now: Timestamp::now(),
        };
        let plan = plan::plan(&deployment, world);
        for change in plan.changes {
            if !self.carry_out(&deployment, change).await? {
                return Ok(None);
            }
        }
        Ok(plan.requeue)
    }

    /// Makes one write. False when the rest of the plan is void.
    async fn carry_out(&self, deployment: &Deployment, change: Change) -> anyhow::Result<bool> {
        match change {
            Change::Create(set) => return self.create(deployment, *set).await,
            Change::Scale { set, from, to, annotations } => {
                let patch = guarded(&set, &annotations, json!({"replicas": to}));
                self.sets.patch(&set, patch).await?;
                let name = set.metadata.name.as_deref().unwrap_or_default();
                if from != to {
                    let direction = if to > from { "up" } else { "down" };
                    let message =
                        format!("Scaled {direction} replica set {name} from {from} to {to}");
                    self.recorder.event(
                        deployment,
                        EventType::Normal,
                        "ScalingReplicaSet",
                        message,
                    );
                }
            }
            Change::Annotate { set, annotations, min_ready_seconds } => {
                let spec = json!({"minReadySeconds": min_ready_seconds});
                let patch = guarded(&set, &annotations, spec);
                self.sets.patch(&set, patch).await?;
            }
            Change::Delete(set) => self.sets.delete(&set).await?,
            Change::Revision(revision) => {
                self.write(deployment, |deployment| {
                    let annotations = deployment.metadata.annotations.get_or_insert_default();
                    annotations.insert(annotations::REVISION.to_owned(), revision);
                })
                .await?;
            }
            Change::Status(status) => self.write_status(deployment, *status).await?,
        }
        Ok(true)
    }

    async fn write_status(
        &self,
        seen: &Deployment,
        status: DeploymentStatus,
    ) -> anyhow::Result<()> {
        self.write(seen, |deployment| deployment.status = Some(status)).await
    }

    /// Changes status or annotations. Both go through the status subresource, which takes nothing
    /// from the spec: the controller's role allows no patch, and a whole Deployment written back
    /// might lack a field that is younger than this program.
    async fn write(
        &self,
        seen: &Deployment,
        change: impl FnOnce(&mut Deployment),
    ) -> anyhow::Result<()> {
        // A revision written just now has changed the resource version.
        let current = self.deployments.cache().get(&ObjectKey::of(seen));
        let Some(current) = current.filter(|c| c.metadata.uid == seen.metadata.uid) else {
            return Ok(());
        };
        if current.metadata.generation != seen.metadata.generation {
            return Ok(());
        }
        let mut updated = current.as_ref().clone();
        change(&mut updated);
        ignore_missing(self.deployments.replace_status(&updated).await)?;
        Ok(())
    }

    async fn create(&self, deployment: &Deployment, set: ReplicaSet) -> anyhow::Result<bool> {
        let error = match self.sets.create(&set).await {
            Ok(made) => {
                let replicas =
                    made.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
                if replicas > 0 {
                    let name = made.metadata.name.as_deref().unwrap_or_default();
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.recorder.event(
                        deployment,
                        EventType::Normal,
                        "ScalingReplicaSet",
                        message,
                    );
                }
                return Ok(true);
            }
            Err(error) => error,
        };
        if namespace_is_terminating(&error) {
            return Ok(false);
        }
        if code(&error) == 409 {
            self.count_collision(deployment).await?;
            return Ok(false);
        }
        let message = format!(
            "Failed to create new replica set {:?}: {}",
            set.metadata.name.as_deref().unwrap_or_default(),
            pods::plain(&error)
        );
        self.recorder.event(
            deployment,
            EventType::Warning,
            "ReplicaSetCreateError",
            message.clone(),
        );
        let mut status = deployment.status.clone().unwrap_or_default();
        status::set_condition(
            &mut status,
            status::condition(
                "Progressing",
                "False",
                "ReplicaSetCreateError",
                message,
                Timestamp::now(),
            ),
        );
        self.write_status(deployment, status).await?;
        Err(error.into())
    }

    /// The name is taken by a ReplicaSet of other content: the next hash must differ.
    async fn count_collision(&self, deployment: &Deployment) -> anyhow::Result<()> {
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
        self.write_status(deployment, status).await
    }
}
