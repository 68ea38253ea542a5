//! Security contexts of pods and containers as the runtime takes them.

use cri::pb::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, SecurityProfile, SupplementalGroupsPolicy,
    security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, SeccompProfile, SecurityContext,
};

use super::containers;

/// Paths of `/proc` and `/sys` that an unprivileged container does not see.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths that it may only read.
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn pod_context(pod: &Pod) -> k8s_openapi::api::core::v1::PodSecurityContext {
    containers::spec(pod).security_context.clone().unwrap_or_default()
}

fn own(container: &Container) -> SecurityContext {
    container.security_context.clone().unwrap_or_default()
}

/// Which namespaces the pod shares with the node, and its containers with each other.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = containers::spec(pod);
    let node_or =
        |on: Option<bool>, other| if on == Some(true) { NamespaceMode::Node } else { other };
    let shared = spec.share_process_namespace == Some(true);
    let pid = if shared { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption {
        network: node_or(spec.host_network, NamespaceMode::Pod).into(),
        pid: node_or(spec.host_pid, pid).into(),
        ipc: node_or(spec.host_ipc, NamespaceMode::Pod).into(),
        ..Default::default()
    }
}

fn seccomp(profile: Option<&SeccompProfile>, privileged: bool) -> SecurityProfile {
    let (kind, reference) = match profile.map(|p| p.type_.as_str()) {
        _ if privileged => (ProfileType::Unconfined, String::new()),
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => {
            let file = profile.and_then(|p| p.localhost_profile.clone()).unwrap_or_default();
            (ProfileType::Localhost, format!("/var/lib/kubelet/seccomp/{file}"))
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    SecurityProfile { profile_type: kind.into(), localhost_ref: reference }
}

fn apparmor(profile: Option<&AppArmorProfile>) -> Option<SecurityProfile> {
    let profile = profile?;
    let kind = match profile.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = profile.localhost_profile.clone().unwrap_or_default();
    Some(SecurityProfile { profile_type: kind.into(), localhost_ref })
}

fn groups(pod: &Pod) -> (Vec<i64>, SupplementalGroupsPolicy) {
    let context = pod_context(pod);
    let mut groups = context.supplemental_groups.unwrap_or_default();
    groups.extend(context.fs_group.filter(|g| !groups.contains(g)));
    let strict = context.supplemental_groups_policy.as_deref() == Some("Strict");
    let policy =
        if strict { SupplementalGroupsPolicy::Strict } else { SupplementalGroupsPolicy::Merge };
    (groups, policy)
}

fn number(value: Option<i64>) -> Option<Int64Value> {
    value.map(|value| Int64Value { value })
}

/// Whether any container of the pod is privileged.
pub fn any_privileged(pod: &Pod) -> bool {
    let privileged = |c: &Container| own(c).privileged == Some(true);
    containers::init(pod).iter().chain(containers::app(pod)).any(privileged)
}

/// The sandbox's context.
pub fn sandbox(pod: &Pod) -> LinuxSandboxSecurityContext {
    let context = pod_context(pod);
    let (supplemental_groups, policy) = groups(pod);
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: number(context.run_as_user),
        run_as_group: number(context.run_as_user.and(context.run_as_group)),
        supplemental_groups,
        supplemental_groups_policy: policy.into(),
        privileged: any_privileged(pod),
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        }),
        ..Default::default()
    }
}

/// The user that the spec asks for: the container's, else the pod's.
pub fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    own(container).run_as_user.or(pod_context(pod).run_as_user)
}

/// Whether the spec forbids the container to run as root.
fn must_not_be_root(pod: &Pod, container: &Container) -> bool {
    own(container).run_as_non_root.or(pod_context(pod).run_as_non_root) == Some(true)
}

/// Checks `runAsNonRoot` against the spec's user or, failing that, the image's.
///
/// # Errors
/// The message that the container waits with (CreateContainerConfigError).
pub fn check_non_root(
    pod: &Pod,
    container: &Container,
    image_uid: Option<i64>,
    image_user: &str,
) -> Result<(), String> {
    if !must_not_be_root(pod, container) {
        return Ok(());
    }
    match run_as_user(pod, container) {
        Some(0) => Err("container's runAsUser breaks non-root policy".into()),
        Some(_) => Ok(()),
        None if image_uid == Some(0) || (image_uid.is_none() && image_user.is_empty()) => {
            Err("container has runAsNonRoot and image will run as root".into())
        }
        None if image_uid.is_none() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root"
        )),
        None => Ok(()),
    }
}

/// The container's context. `target` is the container whose processes an ephemeral one sees.
pub fn container(
    pod: &Pod,
    container: &Container,
    target: Option<String>,
) -> LinuxContainerSecurityContext {
    let (context, pod_level) = (own(container), pod_context(pod));
    let privileged = context.privileged == Some(true);
    let capabilities = context.capabilities.unwrap_or_default();
    let names = |list: Option<Vec<String>>| list.unwrap_or_default();
    let (supplemental_groups, policy) = groups(pod);
    let unmasked = privileged || context.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| {
        if unmasked { vec![] } else { list.iter().map(|p| (*p).to_owned()).collect() }
    };
    let mut namespaces = namespaces(pod);
    if let Some(target) = target {
        namespaces.pid = NamespaceMode::Target.into();
        namespaces.target_id = target;
    }
    let adds_admin =
        capabilities.add.iter().flatten().any(|c| c.trim_start_matches("CAP_") == "SYS_ADMIN");
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: names(capabilities.add),
            drop_capabilities: names(capabilities.drop),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces),
        run_as_user: number(context.run_as_user.or(pod_level.run_as_user)),
        run_as_group: number(context.run_as_group.or(pod_level.run_as_group)),
        readonly_rootfs: context.read_only_root_filesystem == Some(true),
        supplemental_groups,
        supplemental_groups_policy: policy.into(),
        no_new_privs: context.allow_privilege_escalation == Some(false)
            && !privileged
            && !adds_admin,
        masked_paths: paths(MASKED),
        readonly_paths: paths(READ_ONLY),
        seccomp: Some(seccomp(
            context.seccomp_profile.as_ref().or(pod_level.seccomp_profile.as_ref()),
            privileged,
        )),
        apparmor: apparmor(
            context.app_armor_profile.as_ref().or(pod_level.app_armor_profile.as_ref()),
        ),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(pod: serde_json::Value, container: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"spec": {"securityContext": pod,
            "containers": [{"name": "c", "securityContext": container}]}}))
        .unwrap()
    }

    #[test]
    fn the_container_wins_over_the_pod() {
        let pod = pod(
            serde_json::json!({"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7, "supplementalGroups": [8]}),
            serde_json::json!({"runAsUser": 9, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        );
        let context = container(&pod, &containers::app(&pod)[0], None);
        assert_eq!(context.run_as_user.unwrap().value, 9);
        assert_eq!(context.run_as_group.unwrap().value, 6);
        assert_eq!(context.supplemental_groups, [8, 7]);
        assert!(context.no_new_privs && !context.masked_paths.is_empty());
        assert_eq!(context.capabilities.unwrap().drop_capabilities, ["ALL"]);
    }

    #[test]
    fn non_root() {
        let check = |p: serde_json::Value, uid, user| {
            let pod = pod(p, serde_json::json!({}));
            check_non_root(&pod, &containers::app(&pod)[0], uid, user)
        };
        let strict = || serde_json::json!({"runAsNonRoot": true});
        assert!(check(serde_json::json!({}), Some(0), "").is_ok());
        assert!(check(strict(), Some(0), "").is_err());
        assert!(check(strict(), None, "").is_err());
        assert!(check(strict(), None, "nobody").unwrap_err().contains("non-numeric"));
        assert!(check(strict(), Some(1000), "").is_ok());
        assert!(
            check(serde_json::json!({"runAsNonRoot": true, "runAsUser": 0}), Some(5), "").is_err()
        );
    }

    #[test]
    fn privileged_is_unconfined() {
        let pod = pod(serde_json::json!({}), serde_json::json!({"privileged": true}));
        let context = container(&pod, &containers::app(&pod)[0], None);
        assert!(context.masked_paths.is_empty());
        assert_eq!(context.seccomp.unwrap().profile_type(), ProfileType::Unconfined);
        assert!(sandbox(&pod).privileged);
    }
}
