//! How and when a Job's pod ended, and how long the next one has to wait. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use crate::pods;

/// Pause before the replacement of the first failed pod; it doubles.
const BACKOFF_MIN: Duration = Duration::from_secs(10);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// Annotation of an index's pod: how many of its pods failed before.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Those of them that the failure policy told to ignore.
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// True when a pod is replaced only once it has failed, not when it is being deleted.
pub(super) fn replaces_only_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// True while the pod is being deleted and has not ended.
pub(super) fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && !pods::is_finished(pod)
}

/// True when the pod has failed, or counts as failed because it was deleted.
pub(super) fn has_failed(pod: &Pod, spec: &JobSpec) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.deletion_timestamp.is_some() && !replaces_only_failed(spec),
    }
}

/// When the pod ended, as well as it can be told.
pub(super) fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let by_containers = containers_ended(pod);
    let not_ready = || {
        let ready = pods::condition(pod, "Ready").filter(|ready| ready.status == "False")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || {
        let end = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        end.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    by_containers.or_else(not_ready).or_else(deleted).or_else(created)
}

/// The latest end, if all containers have ended.
fn containers_ended(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let first = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: Vec<_> = first
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let main = status.container_statuses.iter().flatten();
    let beside = status.init_container_statuses.iter().flatten();
    let beside = beside.filter(|container| sidecars.contains(&container.name.as_str()));
    let end = |container: &ContainerStatus| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        ended.finished_at.as_ref().map(|time| time.0)
    };
    let ends: Option<Vec<_>> = main.chain(beside).map(end).collect();
    ends?.into_iter().max()
}

fn pause(failures: usize, latest: Timestamp, now: Timestamp) -> Option<Duration> {
    let doublings = u32::try_from(failures.checked_sub(1)?).unwrap_or(10).min(10);
    let pause = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    let passed = Duration::try_from(now.duration_since(latest)).unwrap_or_default();
    Some(pause.saturating_sub(passed)).filter(|wait| !wait.is_zero())
}

/// How long to wait after the latest failure, if that time is not over. Failures before the latest
/// success do not count.
pub(super) fn backoff(all: &[Arc<Pod>], spec: &JobSpec, now: Timestamp) -> Option<Duration> {
    let succeeded = all.iter().filter(|pod| pods::phase(pod) == "Succeeded");
    let success = succeeded.filter_map(|pod| finished_at(pod)).max();
    let failures: Vec<_> = all
        .iter()
        .filter(|pod| has_failed(pod, spec))
        .filter_map(|pod| finished_at(pod))
        .filter(|failure| success.is_none_or(|success| *failure > success))
        .collect();
    pause(failures.len(), failures.iter().max().copied()?, now)
}

fn annotated(pod: &Pod, key: &str) -> i32 {
    pod.annotations().get(key).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Failures of an index before this pod: those that count, and those to be ignored.
pub(super) fn earlier_failures(pod: &Pod) -> (i32, i32) {
    (annotated(pod, FAILURES), annotated(pod, IGNORED))
}

/// How long an index has to wait after the failure of its latest pod, if that time is not over.
pub(super) fn index_backoff(latest: &Pod, now: Timestamp) -> Option<Duration> {
    let (counted, ignored) = earlier_failures(latest);
    let failures = counted.saturating_add(ignored).saturating_add(1);
    pause(usize::try_from(failures).unwrap_or(1), finished_at(latest)?, now)
}
