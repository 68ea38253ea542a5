//! StatefulSet: pods with a stable name, host name and storage each, started, updated and stopped in
//! order.

use std::sync::Arc;

use component::workqueue::Requeue;
use component::{Informer, ObjectKey, WorkQueue, selector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::core::Status;

use crate::context::{Context, Running, enqueue_changes};
use crate::pods::{self, PodControl};
use crate::revisions;
use crate::writes::{Writer, ignore_missing, namespace_is_terminating};

mod identity;
mod plan;

use plan::{Revisions, Step, Steps, World};

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let sets = context.informer::<StatefulSet>();
    let history = context.informer::<ControllerRevision>();
    let claims = context.informer::<PersistentVolumeClaim>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&sets, &queue);
    let candidates = sets.clone();
    pods::enqueue_controllers(&pods::informer(context), "StatefulSet", &queue, move |pod| {
        selecting(&candidates, pod)
    });
    let controller = Arc::new(Controller {
        writer: Writer::new(context.client.clone(), sets),
        history: Writer::new(context.client.clone(), history),
        claims: Writer::new(context.client.clone(), claims),
        pods: PodControl::new(context, "statefulset-controller"),
    });
    let workers = context.config.workers.statefulset;
    Ok(Some(context.work("statefulset", queue, workers, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })))
}

fn selecting(sets: &Informer<StatefulSet>, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let labels = pod.metadata.labels.as_ref();
    let matching = sets.list_namespace(namespace).into_iter().filter(|set| {
        set.spec.as_ref().is_some_and(|spec| selector::matches(&spec.selector, labels))
    });
    matching.map(|set| ObjectKey::of(set.as_ref())).collect()
}

struct Controller {
    writer: Writer<StatefulSet>,
    history: Writer<ControllerRevision>,
    claims: Writer<PersistentVolumeClaim>,
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
        let update =
            revisions::ensure(&self.history, set.as_ref(), &spec.template, &known, collisions)
                .await;
        let update = match update {
            Err(error) if namespace_is_terminating(&error) => return Ok(None),
            other => other?,
        };
        let named = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let current = known.iter().find(|revision| revision.metadata.name.as_deref() == named);
        let current = current.cloned().unwrap_or_else(|| update.clone());
        let revisions = Revisions { current, update };
        let mut world = World { pods: self.claim(&set, spec).await?, now: Timestamp::now() };
        let steps = plan::plan(&set, &revisions, &world);
        let requeue = steps.requeue;
        let failure = self.carry_out(&set, steps).await.err();
        world.pods = self.claim(&set, spec).await?;
        let status = plan::status(&set, &revisions, &world);
        if set.status.as_ref() != Some(&status) {
            let mut updated = set.as_ref().clone();
            updated.status = Some(status);
            ignore_missing(self.writer.replace_status(&updated).await)?;
        }
        self.tidy_history(&set, &known, &revisions, &world).await?;
        match failure {
            Some(error) if namespace_is_terminating(&error) => Ok(None),
            Some(error) => Err(error.into()),
            None => Ok(requeue),
        }
    }

    /// The set's pods. Only one with the name of an ordinal can become a pod of the set.
    async fn claim(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
    ) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let is_member = |pod: &Pod| identity::ordinal(set, pod).is_some();
        self.pods.claim_members(set, &spec.selector, is_member).await
    }

    async fn carry_out(&self, set: &StatefulSet, steps: Steps) -> Result<(), kube::Error> {
        for pod in steps.waiting {
            self.provide_claims(set, &pod).await?;
        }
        for step in steps.steps {
            match step {
                Step::Create(pod) => {
                    self.provide_claims(set, &pod).await?;
                    self.pods.create(set, &pod).await?;
                }
                Step::Delete(pod) => self.pods.delete(set, &pod).await?,
            }
        }
        Ok(())
    }

    /// Makes the claims of a pod that are missing. A claim that is being deleted is waited for: the
    /// pod must not start with a volume that is about to go.
    async fn provide_claims(&self, set: &StatefulSet, pod: &Pod) -> Result<(), kube::Error> {
        for claim in identity::claims(set, pod) {
            match self.claims.cache().get(&ObjectKey::of(&claim)) {
                None => {
                    self.claims.create(&claim).await?;
                }
                Some(known) if known.metadata.deletion_timestamp.is_some() => {
                    let message = format!("claim {} is being deleted", claim.name_any());
                    let status = Status::failure(&message, "Conflict").with_code(409);
                    return Err(kube::Error::Api(Box::new(status)));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn tidy_history(
        &self,
        set: &StatefulSet,
        known: &[Arc<ControllerRevision>],
        revisions: &Revisions,
        world: &World,
    ) -> Result<(), kube::Error> {
        let in_use = |revision: &ControllerRevision| {
            let name = &revision.metadata.name;
            *name == revisions.current.metadata.name
                || *name == revisions.update.metadata.name
                || world.pods.iter().any(|pod| identity::revision_of(pod) == name.as_deref())
        };
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        for revision in revisions::surplus(known, in_use, limit) {
            self.history.delete(&revision).await?;
        }
        Ok(())
    }
}
