//! The same pods without a kubelet: bare calls of the container runtime interface.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cri::Runtime;
use cri::pb::security_profile::ProfileType;
use cri::pb::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, RunPodSandboxRequest, SecurityProfile, StartContainerRequest,
    StopPodSandboxRequest,
};
use futures::future::try_join_all;

use super::IMAGE;
use super::node::Node;
use crate::bench::Bench;
use crate::drive::Sample;

/// How long a stopped container has, as a pod has by default.
const GRACE: Duration = Duration::from_secs(30);
/// How long all pods may take.
const WITHIN: Duration = Duration::from_secs(240);

/// What the kubelet hides of `/proc` and `/sys`, and what it makes read-only: mounts that cost time.
const MASKED: [&str; 11] = [
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
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Times of the two halves of a pod's life.
pub struct Floor {
    /// `RunPodSandbox`, `CreateContainer`, `StartContainer`.
    pub start: Sample,
    /// `StopContainer`, `StopPodSandbox`.
    pub stop: Sample,
}

/// Starts `count` pods on the node and stops them, all at once, as both kubelets do: each has a task
/// per pod and no limit of its own. The kubelet must be stopped.
///
/// # Errors
/// containerd refuses a call, or all calls together take too long.
pub fn measure(bench: &Bench, node: &Node, count: usize) -> anyhow::Result<Floor> {
    let pods: Vec<PodSandboxConfig> = (0..count).map(sandbox).collect();
    for pod in &pods {
        let dir = node.path(&pod.log_directory).join(CONTAINER);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    bench.block_on(async {
        let runtime = Runtime::connect(&node.runtime())?;
        let (running, start) = all(pods.iter().map(|pod| run(&runtime, pod))).await?;
        let (_, stop) = all(running.iter().map(|pod| stop(&runtime, pod))).await?;
        Ok(Floor { start, stop })
    })
}

/// Identifiers of a sandbox and its container.
struct Running {
    sandbox: String,
    container: String,
}

async fn run(runtime: &Runtime, pod: &PodSandboxConfig) -> cri::Result<Running> {
    let request =
        RunPodSandboxRequest { config: Some(pod.clone()), ..RunPodSandboxRequest::default() };
    let sandbox = runtime.run_pod_sandbox(request).await?.pod_sandbox_id;
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(container()),
        sandbox_config: Some(pod.clone()),
    };
    let container = runtime.create_container(request).await?.container_id;
    let request = StartContainerRequest { container_id: container.clone() };
    runtime.start_container(request).await?;
    Ok(Running { sandbox, container })
}

async fn stop(runtime: &Runtime, pod: &Running) -> cri::Result<()> {
    runtime.stop_container(&pod.container, GRACE).await?;
    let request = StopPodSandboxRequest { pod_sandbox_id: pod.sandbox.clone() };
    runtime.stop_pod_sandbox(request).await?;
    Ok(())
}

/// Does all at once, and takes the time of each.
async fn all<T>(
    work: impl Iterator<Item = impl Future<Output = cri::Result<T>>>,
) -> anyhow::Result<(Vec<T>, Sample)> {
    let started = Instant::now();
    let timed = work.map(async |one| Ok::<_, cri::Error>((one.await?, started.elapsed())));
    let done = tokio::time::timeout(WITHIN, try_join_all(timed)).await;
    let done = done.context("the runtime takes too long")?.context("a call of the runtime")?;
    ensure!(!done.is_empty(), "no pods");
    let (results, mut latencies): (Vec<T>, Vec<Duration>) = done.into_iter().unzip();
    latencies.sort_unstable();
    Ok((results, Sample { latencies, elapsed: started.elapsed(), server: Duration::ZERO }))
}

const CONTAINER: &str = "pause";

/// What a kubelet asks for the pods of `super::pods`, without the mounts that it makes itself.
fn sandbox(index: usize) -> PodSandboxConfig {
    let name = format!("floor-{index:03}");
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.clone(),
            uid: name.clone(),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.clone(),
        log_directory: format!("/var/log/pods/default_{name}_{name}"),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: format!("/kubepods/burstable/pod{name}"),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                seccomp: Some(profile(ProfileType::RuntimeDefault)),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

fn container() -> ContainerConfig {
    let paths = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect();
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: CONTAINER.to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.to_owned(), ..ImageSpec::default() }),
        log_path: format!("{CONTAINER}/0.log"),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources {
                cpu_shares: 2,
                oom_score_adj: 999,
                ..LinuxContainerResources::default()
            }),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces()),
                seccomp: Some(profile(ProfileType::Unconfined)),
                masked_paths: paths(&MASKED),
                readonly_paths: paths(&READ_ONLY),
                ..LinuxContainerSecurityContext::default()
            }),
        }),
        ..ContainerConfig::default()
    }
}

fn namespaces() -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::Container.into(), ..NamespaceOption::default() }
}

fn profile(kind: ProfileType) -> SecurityProfile {
    SecurityProfile { profile_type: kind.into(), ..SecurityProfile::default() }
}
