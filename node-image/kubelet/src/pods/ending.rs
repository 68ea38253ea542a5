//! How a pod ends: finished by itself, deleted through the API, or gone from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::plan::Plan;
use super::resizing::Resizing;
use super::worker::{Desired, Worker};
use super::{cleanup, stop};
use crate::runtime::observe;
use crate::spec::containers;
use crate::volumes;

/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How long a pod that is over waits before it looks around again.
const REST: Duration = Duration::from_secs(300);
/// A pod that is not in the API any more is not waited for long: nobody sees it.
const GONE: Duration = Duration::from_secs(30);

fn grace(desired: &Desired) -> Duration {
    match desired {
        Desired::Present(pod) => stop::grace_of(pod),
        Desired::Gone => Duration::ZERO,
    }
}

impl Worker {
    /// Whether the pod is not to run (any more).
    pub(super) fn is_ending(&self, pod: &Pod) -> bool {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        self.over
            || pod.metadata.deletion_timestamp.is_some()
            || matches!(phase, Some("Succeeded" | "Failed"))
    }

    /// Stops the pod, reports its end, takes its volumes away and, when it is being deleted,
    /// deletes it from the API. Answers when to look again.
    pub(super) async fn end(&mut self, pod: &Arc<Pod>) -> Instant {
        match self.try_end(pod).await {
            Ok(()) => Instant::now() + REST,
            Err(error) => {
                tracing::warn!(
                    pod.name = self.id.name,
                    pod.namespace = self.id.namespace,
                    "ending the pod: {error:#}"
                );
                Instant::now() + RETRY
            }
        }
    }

    async fn try_end(&mut self, pod: &Arc<Pod>) -> anyhow::Result<()> {
        self.probes.stop();
        self.halt(pod, stop::grace_of(pod)).await?;
        self.node.ports.release(&self.id.uid);
        let pod = &self.given(&self.newest(pod));
        self.resizing = Resizing::default();
        let runtime = observe::observe(&self.node.runtime, &self.id.uid).await?;
        self.listen(pod, &runtime);
        self.over = true;
        anyhow::ensure!(
            self.report(pod, &runtime, &Plan::default()).await,
            "the last status is not written yet"
        );
        volumes::tear_down(&self.node.config.root_dir, &self.id.uid)?;
        self.node.allocations.ring();
        if pod.metadata.deletion_timestamp.is_some() {
            self.delete(pod).await?;
        }
        Ok(())
    }

    /// Deletes the pod's object for good: everything of it has stopped.
    async fn delete(&self, pod: &Pod) -> kube::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), containers::namespace(pod));
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..Default::default()
        };
        match api.delete(containers::name(pod), &params).await {
            // Gone already, or another pod by now has the name.
            Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Stops everything of the pod within `patience`; when meanwhile the API shortens the grace
    /// period, the rest goes faster.
    async fn halt(&mut self, pod: &Pod, mut patience: Duration) -> anyhow::Result<()> {
        let mut hook = true;
        loop {
            let runtime = observe::observe(&self.node.runtime, &self.id.uid).await?;
            if runtime.is_stopped() && runtime.sandboxes.iter().all(|s| !s.ready) {
                return Ok(());
            }
            let mut news = self.desired.clone();
            news.mark_unchanged();
            let shorter = news.wait_for(|d| grace(d) < patience);
            let how = stop::How { grace: patience, hook };
            tokio::select! {
                stopped = stop::pod(&self.node, pod, &runtime, how) => stopped?,
                next = shorter => {
                    patience = next.map(|d| grace(&d)).unwrap_or_default();
                    hook = false;
                }
            }
        }
    }

    /// Stops what is left of a pod that is not in the API, and removes every trace.
    pub(super) async fn vanish(&mut self) -> anyhow::Result<()> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(self.id.name.clone());
        pod.metadata.namespace = Some(self.id.namespace.clone());
        pod.metadata.uid = Some(self.id.uid.clone());
        let runtime = observe::observe(&self.node.runtime, &self.id.uid).await?;
        let patience = if self.over { Duration::ZERO } else { GONE.min(granted(&runtime)) };
        let how = stop::How { grace: patience, hook: false };
        if !runtime.is_stopped() {
            tracing::info!(
                pod.name = self.id.name,
                pod.uid = self.id.uid,
                "stopping a pod that is not in the API"
            );
            stop::pod(&self.node, &pod, &runtime, how).await?;
        }
        let runtime = observe::observe(&self.node.runtime, &self.id.uid).await?;
        cleanup::purge(&self.node, &self.id, &runtime).await
    }
}

/// The grace period that the pod's containers were made with.
fn granted(runtime: &observe::Pod) -> Duration {
    let seconds = runtime
        .containers
        .first()
        .and_then(|c| c.annotations.get(crate::runtime::labels::GRACE_PERIOD)?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}
