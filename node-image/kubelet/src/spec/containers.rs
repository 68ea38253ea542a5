//! The containers of a pod of all three kinds under one view.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// Where in the spec a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Runs to its end before the next; `sidecar` ones (restartPolicy Always) keep running.
    Init,
    /// An ordinary container.
    App,
    /// Added to a running pod for debugging; never restarted.
    Ephemeral,
}

impl Kind {
    /// The list's name in PodSpec, as in `spec.containers{name}` of events.
    pub fn field(self) -> &'static str {
        match self {
            Kind::Init => "initContainers",
            Kind::App => "containers",
            Kind::Ephemeral => "ephemeralContainers",
        }
    }
}

static NO_SPEC: PodSpec = PodSpec {
    active_deadline_seconds: None,
    affinity: None,
    automount_service_account_token: None,
    containers: Vec::new(),
    dns_config: None,
    dns_policy: None,
    enable_service_links: None,
    ephemeral_containers: None,
    host_aliases: None,
    host_ipc: None,
    host_network: None,
    host_pid: None,
    host_users: None,
    hostname: None,
    hostname_override: None,
    image_pull_secrets: None,
    init_containers: None,
    node_name: None,
    node_selector: None,
    os: None,
    overhead: None,
    preemption_policy: None,
    priority: None,
    priority_class_name: None,
    readiness_gates: None,
    resource_claims: None,
    resources: None,
    restart_policy: None,
    runtime_class_name: None,
    scheduler_name: None,
    scheduling_gates: None,
    security_context: None,
    service_account: None,
    service_account_name: None,
    set_hostname_as_fqdn: None,
    share_process_namespace: None,
    subdomain: None,
    termination_grace_period_seconds: None,
    tolerations: None,
    topology_spread_constraints: None,
    volumes: None,
    workload_ref: None,
};

/// The pod's spec; an empty one for a pod without (which no API server lets through).
pub fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&NO_SPEC)
}

/// The pod's uid.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The pod's namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// The pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `namespace/name`, for logs and messages.
pub fn full_name(pod: &Pod) -> String {
    format!("{}/{}", namespace(pod), name(pod))
}

/// Init containers, in the order in which they start.
pub fn init(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// Ordinary containers.
pub fn app(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

/// Ephemeral containers.
pub fn ephemeral(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// An init container that keeps running beside the ordinary ones (KEP-753).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Finds a container of any kind by name.
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<(Kind, Cow<'a, Container>)> {
    if let Some(found) = app(pod).iter().find(|c| c.name == name) {
        return Some((Kind::App, Cow::Borrowed(found)));
    }
    if let Some(found) = init(pod).iter().find(|c| c.name == name) {
        return Some((Kind::Init, Cow::Borrowed(found)));
    }
    let found = ephemeral(pod).iter().find(|c| c.name == name)?;
    Some((Kind::Ephemeral, Cow::Owned(plain(found))))
}

/// An ephemeral container as an ordinary one: the same fields without what it cannot have.
pub fn plain(e: &EphemeralContainer) -> Container {
    Container {
        args: e.args.clone(),
        command: e.command.clone(),
        env: e.env.clone(),
        env_from: e.env_from.clone(),
        image: e.image.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        name: e.name.clone(),
        resources: e.resources.clone(),
        security_context: e.security_context.clone(),
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        tty: e.tty,
        volume_mounts: e.volume_mounts.clone(),
        working_dir: e.working_dir.clone(),
        ..Default::default()
    }
}

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Always,
    /// When it did not exit with 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl Restart {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text? {
            "Always" => Some(Restart::Always),
            "OnFailure" => Some(Restart::OnFailure),
            "Never" => Some(Restart::Never),
            _ => None,
        }
    }

    /// The pod's own policy.
    pub fn of_pod(pod: &Pod) -> Self {
        Self::parse(spec(pod).restart_policy.as_deref()).unwrap_or(Restart::Always)
    }

    /// What holds for one container: its own policy if it has one (sidecars, KEP-5307), else the
    /// pod's; an init container that must end is not repeated after it succeeded.
    pub fn of(pod: &Pod, kind: Kind, container: &Container) -> Self {
        if kind == Kind::Ephemeral {
            return Restart::Never;
        }
        let own = Self::parse(container.restart_policy.as_deref());
        let policy = own.unwrap_or_else(|| Self::of_pod(pod));
        match (kind, is_sidecar(container), policy) {
            (Kind::Init, false, Restart::Always) => Restart::OnFailure,
            _ => policy,
        }
    }

    /// Whether a container that exited with `code` starts again.
    pub fn after(self, code: i32) -> bool {
        match self {
            Restart::Always => true,
            Restart::OnFailure => code != 0,
            Restart::Never => false,
        }
    }
}

/// A hash of what a change of requires the container to be made anew: name and image. The same
/// number as upstream's (FNV-1a, 32 bits, over the JSON of the two), so that a kubelet of either
/// kind adopts the other's containers.
pub fn hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let fields = serde_json::json!({"image": image, "name": container.name}).to_string();
    let mut hash: u32 = 0x811c_9dc5;
    for byte in fields.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    format!("{hash:x}")
}

/// Whether the pod shares the node's network.
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn restart_policies() {
        let pod = pod(serde_json::json!({"spec": {"restartPolicy": "Always",
            "containers": [{"name": "a"}],
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}}));
        let (kind, container) = find(&pod, "i").unwrap();
        let policy = Restart::of(&pod, kind, &container);
        assert!(!policy.after(0) && policy.after(1));
        let (kind, container) = find(&pod, "s").unwrap();
        assert!(Restart::of(&pod, kind, &container).after(0));
        assert!(Restart::Always.after(0) && !Restart::Never.after(1));
    }

    #[test]
    fn a_changed_image_changes_the_hash() {
        let a = Container { name: "a".into(), image: Some("x:1".into()), ..Default::default() };
        let b = Container { image: Some("x:2".into()), ..a.clone() };
        assert_ne!(hash(&a), hash(&b));
        let c = Container { working_dir: Some("/".into()), ..a.clone() };
        assert_eq!(hash(&a), hash(&c));
    }
}
