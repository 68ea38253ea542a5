//! Job: runs pods until enough of them have succeeded.
//!
//! Every pod carries a finalizer until it is counted, so that no result is lost or counted twice: the
//! pod's uid is first noted in the status, then the finalizer is taken off, then the count is raised
//! (KEP-2307).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use component::workqueue::Requeue;
use component::{EventType, Informer, ObjectKey, WorkQueue, selector};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::context::{Context, Running, enqueue_changes};
use crate::owners;
use crate::pods::{self, PodControl};
use crate::writes::{Writer, code, ignore_missing, namespace_is_terminating};

mod end;
mod indexes;
mod outcome;
mod plan;
mod policy;
mod tally;
mod template;
pub mod ttl;

use plan::{Plan, World};

/// Finalizer of pods whose result is not counted yet.
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

/// Most pods written to at the same time.
const AT_ONCE: usize = 50;

/// A condition of the Job that is true.
pub fn has_condition(job: &Job, kind: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

/// True when the Job has ended for good.
pub fn is_finished(job: &Job) -> bool {
    has_condition(job, "Complete") || has_condition(job, "Failed")
}

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let jobs = context.informer::<Job>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&jobs, &queue);
    let cache = pods::informer(context);
    let candidates = jobs.clone();
    pods::enqueue_controllers(&cache, "Job", &queue, move |pod| selecting(&candidates, pod));
    let strays: Arc<WorkQueue<ObjectKey>> = Arc::new(WorkQueue::new());
    let wake = strays.clone();
    cache.on_change(move |change| {
        if change.new.is_some_and(|pod| has_finalizer(pod)) {
            wake.add(ObjectKey::of(change.latest().as_ref()));
        }
    });
    wake_strays(&jobs, &cache, &strays);
    let controller = Arc::new(Controller {
        writer: Writer::new(context.client.clone(), jobs),
        pods: PodControl::new(context, "job-controller").adopting_with(FINALIZER),
        dropped: Mutex::default(),
    });
    let forgetful = Arc::downgrade(&controller);
    cache.on_change(move |change| {
        if let (None, Some(controller)) = (change.new, forgetful.upgrade()) {
            let uid = change.latest().metadata.uid.as_deref().unwrap_or_default();
            controller.dropped().remove(uid);
        }
    });
    let (tidier, workers) = (controller.clone(), context.config.workers.job);
    Ok(Some(crate::context::together(vec![
        context.work("job", queue, workers, move |key| {
            let controller = controller.clone();
            async move { controller.sync(&key).await }
        }),
        context.work("job-stray-pods", strays, 1, move |key| {
            let tidier = tidier.clone();
            async move {
                tidier.free_stray(&key).await?;
                Ok(None)
            }
        }),
    ])))
}

/// The Jobs that may adopt a pod.
fn selecting(jobs: &Informer<Job>, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let labels = pod.metadata.labels.as_ref();
    let matching = jobs.list_namespace(namespace).into_iter().filter(|job| {
        let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| selector::matches(selector, labels))
    });
    matching.map(|job| ObjectKey::of(job.as_ref())).collect()
}

/// When a Job is gone, is going or has ended, its pods are let go.
fn wake_strays(
    jobs: &Informer<Job>,
    pods: &Arc<Informer<Pod>>,
    strays: &Arc<WorkQueue<ObjectKey>>,
) {
    let (pods, strays) = (pods.clone(), strays.clone());
    jobs.on_change(move |change| {
        let over = |job: &Job| job.metadata.deletion_timestamp.is_some() || is_finished(job);
        if change.new.is_some_and(|job| !over(job)) {
            return;
        }
        let uid = change.latest().metadata.uid.as_deref().unwrap_or_default();
        for pod in pods.by_index(owners::BY_CONTROLLER, uid) {
            if has_finalizer(&pod) {
                strays.add(ObjectKey::of(pod.as_ref()));
            }
        }
    });
}

fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

struct Controller {
    writer: Writer<Job>,
    pods: PodControl,
    /// Uids of pods that were dropped, as long as they are there. After a restart they count as
    /// failures for the back-off, and for nothing else.
    dropped: Mutex<HashSet<String>>,
}

impl Controller {
    fn dropped(&self) -> MutexGuard<'_, HashSet<String>> {
        self.dropped.lock().expect("no code panics while it holds this lock")
    }

    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let Some(job) = self.writer.cache().get(key) else { return Ok(None) };
        let Some(spec) = &job.spec else { return Ok(None) };
        let managed_elsewhere = spec
            .managed_by
            .as_deref()
            .is_some_and(|manager| manager != "kubernetes.io/job-controller");
        if managed_elsewhere || job.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let Some(selector) = &spec.selector else { return Ok(None) };
        let owned = self.pods.claim(job.as_ref(), selector).await?;
        let uids = owned.iter().filter_map(|pod| pod.metadata.uid.clone());
        let dropped = {
            let all = self.dropped();
            uids.filter(|uid| all.contains(uid)).collect()
        };
        let plan = plan::plan(&job, &World { pods: owned, dropped, now: Timestamp::now() });
        let result = self.carry_out(&job, plan).await;
        match result {
            Err(error) if namespace_is_terminating(&error) => Ok(None),
            other => Ok(other?),
        }
    }

    async fn carry_out(&self, job: &Job, plan: Plan) -> Result<Requeue, kube::Error> {
        each(&plan.drop, |pod| self.drop(job, pod)).await?;
        each(&plan.delete, |pod| self.pods.delete(job, pod)).await?;
        let (made, created) = self.create(job, &plan.create).await;
        let status = plan.status_with(made);
        // The status names the uids before their finalizers go.
        if job.status.as_ref() != Some(&status) {
            let mut updated = job.clone();
            updated.status = Some(status);
            if ignore_missing(self.writer.replace_status(&updated).await)?.is_none() {
                return Ok(None);
            }
            for (kind, reason, message) in plan.events {
                self.pods.recorder().event(job, kind, &reason, message);
            }
        }
        each(&plan.release, |pod| self.release(pod)).await?;
        created?;
        Ok(plan.requeue)
    }

    /// Makes pods; returns how many there are now.
    async fn create(&self, job: &Job, fresh: &[Pod]) -> (usize, Result<(), kube::Error>) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let (made, result) = super::replicaset::slow_start(fresh.len(), || {
            let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // After a failure the batch ends, so the index never passes the end.
            self.pods.create(job, &fresh[index.min(fresh.len() - 1)])
        })
        .await;
        (made.len(), result)
    }

    /// Stops a pod that is not wanted. Without its finalizer it is never counted.
    async fn drop(&self, job: &Job, pod: &Pod) -> Result<(), kube::Error> {
        self.dropped().extend(pod.metadata.uid.clone());
        if has_finalizer(pod) {
            self.release(pod).await?;
        }
        self.pods.delete(job, pod).await
    }

    async fn release(&self, pod: &Pod) -> Result<(), kube::Error> {
        let mut finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        let patch = json!({"metadata": {"uid": pod.metadata.uid, "finalizers": finalizers}});
        match self.pods.writer().patch(pod, patch).await {
            Ok(freed) => {
                let gone = freed.metadata.deletion_timestamp.is_some()
                    && freed.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
                    && freed.metadata.deletion_grace_period_seconds == Some(0);
                if gone {
                    self.pods.cache().observe_deleted(&freed);
                }
                Ok(())
            }
            Err(error) if matches!(code(&error), 404 | 409 | 422) => {
                if code(&error) == 404 {
                    self.pods.cache().observe_deleted(pod);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the finalizer off pods whose Job is gone, or that no Job controls.
    async fn free_stray(&self, key: &ObjectKey) -> Result<(), kube::Error> {
        let Some(pod) = self.pods.cache().get(key).filter(|pod| has_finalizer(pod)) else {
            return Ok(());
        };
        let jobs: &Informer<Job> = self.writer.cache();
        let owner = owners::controller_of(&pod.metadata).filter(|owner| owner.kind == "Job");
        let job = owner.and_then(|owner| {
            jobs.get(&ObjectKey::new(key.namespace.clone(), owner.name.clone()))
                .filter(|job| job.metadata.uid.as_ref() == Some(&owner.uid))
        });
        match job {
            Some(job) if job.metadata.deletion_timestamp.is_none() && !is_finished(&job) => Ok(()),
            _ => self.release(&pod).await,
        }
    }
}

/// Does something to each of the pods, to a few at once; returns a failure after it has tried all.
async fn each<'a, F, Fut>(pods: &'a [Arc<Pod>], act: F) -> Result<(), kube::Error>
where
    F: Fn(&'a Arc<Pod>) -> Fut,
    Fut: Future<Output = Result<(), kube::Error>>,
{
    let mut failure = Ok(());
    for some in pods.chunks(AT_ONCE) {
        for outcome in futures::future::join_all(some.iter().map(&act)).await {
            failure = failure.and(outcome);
        }
    }
    failure
}

/// An event to be recorded with a status.
type Happening = (EventType, String, String);
