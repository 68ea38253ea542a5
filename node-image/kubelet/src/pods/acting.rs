//! How a worker acts: stops, removes and starts containers, makes volumes and sandboxes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use component::events::EventType;
use k8s_openapi::api::core::v1::Pod;

use super::backoff::Delay;
use super::plan::{Plan, Why};
use super::worker::{RETRY, Worker};
use super::{sandbox, start, stop};
use crate::metrics;
use crate::node::objects::Age;
use crate::runtime::observe;
use crate::spec::containers;
use crate::spec::resize::Settings;
use crate::volumes;

/// How soon a pod looks again whether the network is there.
const NETWORK: Duration = Duration::from_secs(1);

impl Worker {
    /// Does what the plan says. Answers with a time when nothing more can be done before it;
    /// `None` means: look again at once. (Failed starts are held back by the next plan.)
    pub(super) async fn act(
        &mut self,
        pod: &Arc<Pod>,
        runtime: &observe::Pod,
        plan: Plan,
    ) -> Option<Instant> {
        if let Some(at) = self.clear(pod, runtime, &plan).await {
            return Some(at);
        }
        if !plan.update.is_empty() {
            self.resize(pod, &plan.update).await;
        }
        if plan.new_sandbox.is_none() && plan.start.is_empty() {
            return None;
        }
        if let Some(at) = self.set_up_volumes(pod, runtime, Age::Fresh).await {
            return Some(at);
        }
        if let Some(attempt) = plan.new_sandbox {
            return self.new_sandbox(pod, runtime, attempt).await;
        }
        for start in &plan.start {
            let volumes = self.volumes.clone().unwrap_or_default();
            let context = start::Context { node: &self.node, pod, runtime, volumes: &volumes };
            match start::start(context, start).await {
                Ok(id) => {
                    metrics::started(None);
                    self.failures.remove(&start.name);
                    if let Some((_, container)) = containers::find(pod, &start.name) {
                        self.resizing.told.insert(id, Settings::of(&container));
                    }
                    let resized = runtime
                        .latest(&start.name)
                        .is_some_and(|c| self.resizing.restarting.remove(&c.id));
                    // Only restarts count: the first crash is followed by a restart at once.
                    if start.attempt > 0 && !resized {
                        self.delays.entry(start.name.clone()).or_default().bump(Instant::now());
                    }
                }
                Err(failed) => {
                    metrics::started(Some(failed.waiting.reason));
                    tracing::info!(
                        pod.name = self.id.name,
                        container.name = start.name,
                        "{}: {}",
                        failed.waiting.reason,
                        failed.waiting.message
                    );
                    if failed.waiting.reason == "RunContainerError"
                        || failed.waiting.reason == "PostStartHookError"
                    {
                        // It was made and ended: the next try follows the crash loop's delays.
                        self.delays.entry(start.name.clone()).or_default().bump(Instant::now());
                    }
                    self.failures.insert(start.name.clone(), failed);
                }
            }
        }
        None
    }

    /// Ends and removes what the plan does not want any more; a time when it has to be tried again.
    async fn clear(
        &mut self,
        pod: &Arc<Pod>,
        runtime: &observe::Pod,
        plan: &Plan,
    ) -> Option<Instant> {
        for kill in &plan.kill {
            let Some(target) = runtime.containers.iter().find(|c| c.id == kill.id) else {
                continue;
            };
            let grace = match kill.why {
                Why::Unhealthy => stop::grace_of_unhealthy(pod, &kill.name),
                Why::Wrong | Why::Resize => stop::grace_of(pod),
            };
            if kill.why == Why::Resize {
                self.resizing.restarting.insert(kill.id.clone());
            }
            let how = stop::How { grace, hook: true };
            if let Err(error) =
                stop::container(&self.node, pod, runtime, target, how, &kill.message).await
            {
                tracing::warn!(container.id = kill.id, "stopping the container: {error}");
                return Some(Instant::now() + RETRY);
            }
        }
        for id in &plan.remove {
            let request = cri::pb::RemoveContainerRequest { container_id: id.clone() };
            if let Err(error) = self.node.runtime.remove_container(request).await {
                tracing::warn!(
                    container.id = id,
                    "removing a container that never started: {error}"
                );
            }
        }
        None
    }

    /// Makes or refreshes the volumes; a time when they have to be tried again.
    pub(super) async fn set_up_volumes(
        &mut self,
        pod: &Arc<Pod>,
        runtime: &observe::Pod,
        age: Age,
    ) -> Option<Instant> {
        let fresh_enough = self.volumes.is_some() && Instant::now() < self.refresh_at;
        if fresh_enough && age == Age::Recent {
            return None;
        }
        let own = runtime.sandbox().map(|s| s.ips.clone()).unwrap_or_default();
        let pod_ips = if containers::host_network(pod) { self.node.facts.ips.clone() } else { own };
        let context = volumes::Context { node: &self.node, pod, pod_ips: &pod_ips, age };
        match volumes::set_up(context).await {
            Ok(volumes) => {
                self.volumes = Some(volumes);
                self.volume_failures = 0;
                self.refresh_at = Instant::now() + self.node.config.sync_frequency;
                None
            }
            Err(failure) => {
                let message = format!(
                    "MountVolume.SetUp failed for volume \"{}\" : {}",
                    failure.volume, failure.message
                );
                self.node.event(pod, EventType::Warning, "FailedMount", message);
                if age == Age::Fresh {
                    self.volumes = None;
                }
                // 1 s, 2 s, … 64 s.
                let wait = Duration::from_secs(1 << self.volume_failures.min(6));
                self.volume_failures += 1;
                self.refresh_at = Instant::now() + wait;
                Some(self.refresh_at)
            }
        }
    }

    async fn new_sandbox(
        &mut self,
        pod: &Arc<Pod>,
        runtime: &observe::Pod,
        attempt: u32,
    ) -> Option<Instant> {
        if !containers::host_network(pod)
            && let Some(why) = self.no_network().await
        {
            if !self.network_complained {
                self.node.event(
                    pod,
                    EventType::Warning,
                    "NetworkNotReady",
                    format!("network is not ready: {why}"),
                );
            }
            self.network_complained = true;
            return Some(Instant::now() + NETWORK);
        }
        self.network_complained = false;
        if !runtime.sandboxes.is_empty() {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.node.event(pod, EventType::Normal, "SandboxChanged", message);
        }
        let how = stop::How { grace: stop::grace_of(pod), hook: true };
        if let Err(error) = stop::pod(&self.node, pod, runtime, how).await {
            tracing::warn!(pod.name = self.id.name, "stopping what is left of the pod: {error}");
            return Some(Instant::now() + RETRY);
        }
        match sandbox::create(&self.node, pod, attempt).await {
            Ok(_) => {
                self.sandbox_retry = None;
                self.sandbox_delay = Delay::default();
                None
            }
            Err(why) => {
                let message = format!("Failed to create pod sandbox: {why}");
                self.node.event(pod, EventType::Warning, "FailedCreatePodSandBox", message);
                let now = Instant::now();
                self.sandbox_delay.bump(now);
                // A third of the containers' back-off: 3 s, 6 s, … 100 s.
                self.sandbox_retry = Some(now + self.sandbox_delay.after(now) / 3);
                self.sandbox_retry
            }
        }
    }

    /// Why the runtime's network is not ready, if it is not.
    async fn no_network(&self) -> Option<String> {
        let answer =
            self.node.runtime.status(cri::pb::StatusRequest { verbose: false }).await.ok()?;
        let conditions = answer.status.map(|s| s.conditions).unwrap_or_default();
        let network = conditions.into_iter().find(|c| c.r#type == "NetworkReady" && !c.status)?;
        Some(format!("{}: {}", network.reason, network.message))
    }
}
