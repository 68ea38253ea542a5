//! Stops containers and pods within a grace period: hook, stop signal, kill signal.
//!
//! Ordinary containers stop together, then the sidecars one by one from the last to the first,
//! then the sandbox with its network.

use std::time::{Duration, Instant};

use component::events::EventType;
use cri::pb;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;

use super::hooks;
use crate::node::Node;
use crate::runtime::observe::{self, State};
use crate::spec::containers::{self, Kind};

/// What a stop signal is given at least, however long the hook took.
const MINIMUM: Duration = Duration::from_secs(2);

/// The pod's grace period: that of its deletion, else that of its spec.
pub fn grace_of(pod: &Pod) -> Duration {
    let spec = containers::spec(pod).termination_grace_period_seconds;
    let seconds = pod.metadata.deletion_grace_period_seconds.or(spec).unwrap_or(30);
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

/// The grace period of a container that a probe gave up on.
pub fn grace_of_unhealthy(pod: &Pod, name: &str) -> Duration {
    let probe = containers::find(pod, name).and_then(|(_, c)| {
        let seconds = |p: &Option<k8s_openapi::api::core::v1::Probe>| {
            p.as_ref()?.termination_grace_period_seconds
        };
        seconds(&c.liveness_probe).or(seconds(&c.startup_probe))
    });
    probe.and_then(|s| u64::try_from(s).ok()).map_or_else(|| grace_of(pod), Duration::from_secs)
}

/// How one container is stopped.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// From now to the kill signal.
    pub grace: Duration,
    /// Whether `preStop` runs: not a second time, when the grace period was shortened.
    pub hook: bool,
}

/// Stops one running container.
///
/// # Errors
/// When the runtime could not.
pub async fn container(
    node: &Node,
    pod: &Pod,
    runtime: &observe::Pod,
    target: &observe::Container,
    how: How,
    why: &str,
) -> cri::Result<()> {
    let found = containers::find(pod, &target.name);
    let kind = found.as_ref().map_or(Kind::App, |(kind, _)| *kind);
    let mut left = how.grace;
    if how.hook {
        node.container_event(
            pod,
            (kind, &target.name),
            EventType::Normal,
            "Killing",
            why.to_owned(),
        );
        let hook = found
            .as_ref()
            .and_then(|(_, c)| c.lifecycle.as_ref()?.pre_stop.as_ref().map(|h| (c, h)));
        if let (Some((spec, hook)), false) = (hook, how.grace.is_zero()) {
            let began = Instant::now();
            let ip =
                runtime.sandbox().and_then(|s| s.ips.first()).or_else(|| node.facts.ips.first());
            let ip = ip.cloned().unwrap_or_default();
            let run = hooks::run(node, spec, &target.id, &ip, hook);
            match tokio::time::timeout(how.grace, run).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => {
                    let message = format!("PreStopHook failed: {why}");
                    node.container_event(
                        pod,
                        (kind, &target.name),
                        EventType::Warning,
                        "FailedPreStopHook",
                        message,
                    );
                }
                Err(_) => tracing::warn!(
                    pod.name = containers::name(pod),
                    "the preStop hook outlived the grace period"
                ),
            }
            left = how.grace.saturating_sub(began.elapsed()).max(MINIMUM);
        }
    }
    match node.runtime.stop_container(&target.id, left).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Stops the whole pod: containers, then sandboxes. Safe to repeat.
///
/// # Errors
/// When the runtime could not stop something; call it again.
pub async fn pod(node: &Node, pod: &Pod, runtime: &observe::Pod, how: How) -> cri::Result<()> {
    let began = Instant::now();
    let alive = |c: &&observe::Container| matches!(c.state, State::Running | State::Unknown);
    let sidecars: Vec<&str> = containers::init(pod)
        .iter()
        .filter(|c| containers::is_sidecar(c))
        .map(|c| c.name.as_str())
        .collect();
    let (beside, ordinary): (Vec<_>, Vec<_>) =
        runtime.containers.iter().filter(alive).partition(|c| sidecars.contains(&c.name.as_str()));
    let why = |c: &observe::Container| format!("Stopping container {}", c.name);
    let all = ordinary
        .iter()
        .map(|c| async move { container(node, pod, runtime, c, how, &why(c)).await });
    let mut outcome = join_all(all).await.into_iter().collect::<Result<(), _>>();
    for name in sidecars.iter().rev() {
        let grace = how.grace.saturating_sub(began.elapsed());
        for c in beside.iter().filter(|c| c.name == *name) {
            let stopped = container(node, pod, runtime, c, How { grace, ..how }, &why(c)).await;
            outcome = outcome.and(stopped);
        }
    }
    for sandbox in &runtime.sandboxes {
        let request = pb::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        match node.runtime.stop_pod_sandbox(request).await {
            Err(error) if !error.is_not_found() => outcome = outcome.and(Err(error)),
            _ => {}
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_periods() {
        let mut pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"terminationGracePeriodSeconds": 5,
            "containers": [{"name": "a", "livenessProbe": {"terminationGracePeriodSeconds": 1}}, {"name": "b"}]}}))
        .unwrap();
        assert_eq!(grace_of(&pod).as_secs(), 5);
        assert_eq!(grace_of_unhealthy(&pod, "a").as_secs(), 1);
        assert_eq!(grace_of_unhealthy(&pod, "b").as_secs(), 5);
        pod.metadata.deletion_grace_period_seconds = Some(0);
        assert_eq!(grace_of(&pod).as_secs(), 0);
    }
}
