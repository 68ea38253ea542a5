//! Labels and annotations on sandboxes and containers, with upstream's keys: they are how a
//! restarted kubelet (of either make) recognises what it finds.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::spec::containers;

/// Pod name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Pod namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Pod uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Container name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: see [`containers::hash`].
pub const HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container had been restarted when this one was made.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where in the container its last words are.
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: `File` or `FallbackToLogsOnError`.
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: seconds between stop and kill signal.
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Annotation, of this project alone: the container's `resources` when it was made, as JSON.
pub const RESOURCES: &str = "marina.dev/resources";

/// Labels of a pod's sandbox: the pod's own and its identity.
pub fn sandbox(pod: &Pod) -> HashMap<String, String> {
    let own = pod.metadata.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    own.chain(identity(pod)).collect()
}

fn identity(pod: &Pod) -> impl Iterator<Item = (String, String)> {
    let pairs = [
        (POD_NAME, containers::name(pod)),
        (POD_NAMESPACE, containers::namespace(pod)),
        (POD_UID, containers::uid(pod)),
    ];
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter()
}

/// Annotations of a pod's sandbox: those of the pod.
pub fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    pod.metadata.annotations.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Labels of a container.
pub fn container(pod: &Pod, name: &str) -> HashMap<String, String> {
    identity(pod).chain([(CONTAINER_NAME.to_owned(), name.to_owned())]).collect()
}

/// Annotations of a container, from which it can be understood without its pod.
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    attempt: u32,
) -> HashMap<String, String> {
    let grace = containers::spec(pod).termination_grace_period_seconds.unwrap_or(30);
    let path =
        container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".into());
    let policy = container.termination_message_policy.clone().unwrap_or_else(|| "File".into());
    let resources = serde_json::to_string(&container.resources.clone().unwrap_or_default())
        .expect("resources have string keys only");
    [
        (HASH, containers::hash(container)),
        (RESTART_COUNT, attempt.to_string()),
        (TERMINATION_PATH, path),
        (TERMINATION_POLICY, policy),
        (GRACE_PERIOD, grace.to_string()),
        (RESOURCES, resources),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into()
}
