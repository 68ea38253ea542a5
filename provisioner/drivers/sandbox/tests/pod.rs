//! A pod on a sandbox worker by way of CRI, as the kubelet makes one: network, limits, scores, exec
//! and metrics of the image that was baked. Needs root and `MARINA_IMAGE_DIR`.
#![allow(clippy::unwrap_used)]

#[path = "../../local/tests/harness/mod.rs"]
mod harness;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cri::Runtime;
use cri::pb::*;
use driver_api::Phase;
use harness::{Driver, Network, assert_nothing_left, image_dir, spec};

const DRIVER: &str = env!("CARGO_BIN_EXE_marina-driver-sandbox");
const SOON: Duration = Duration::from_secs(30);

const CNI: &str = r#"{"cniVersion": "1.0.0", "name": "t", "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.7.0/24"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

fn pod() -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "web".into(),
            uid: "u1".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: "web".into(),
        log_directory: "/var/log/pods/default_web_u1".into(),
        port_mappings: vec![PortMapping {
            container_port: 8080,
            host_port: 18080,
            ..PortMapping::default()
        }],
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: "/kubepods/burstable/podu1".into(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption {
                    pid: NamespaceMode::Container.into(),
                    ..NamespaceOption::default()
                }),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

fn container() -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "web".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "marina.dev/demo:v1".into(), ..ImageSpec::default() }),
        log_path: "web/0.log".into(),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources {
                memory_limit_in_bytes: 64 << 20,
                cpu_shares: 102,
                cpu_period: 100_000,
                cpu_quota: 50_000,
                // What the kubelet asks for a pod of the guaranteed class.
                oom_score_adj: -997,
                ..LinuxContainerResources::default()
            }),
            ..LinuxContainerConfig::default()
        }),
        ..ContainerConfig::default()
    }
}

async fn network_ready(runtime: &Runtime) {
    let deadline = Instant::now() + SOON;
    loop {
        let status = runtime.status(StatusRequest::default()).await.unwrap().status.unwrap();
        if status.conditions.iter().all(|c| c.status) {
            return;
        }
        assert!(Instant::now() < deadline, "{:?}", status.conditions);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The answer of the demo server to a process in its own container.
async fn fetch(runtime: &Runtime, id: &str, url: &str) -> String {
    let command = ["wget", "-q", "-O", "-", url].map(str::to_owned).to_vec();
    let deadline = Instant::now() + SOON;
    loop {
        let done = runtime.exec_sync(id, command.clone(), SOON).await.unwrap();
        if done.exit_code == 0 {
            return String::from_utf8(done.stdout).unwrap();
        }
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(Instant::now() < deadline, "{url}: {said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_pod_runs_on_the_baked_image() {
    let image = image_dir();
    let network = Network::new("sp");
    let mut driver = Driver::start(DRIVER).await;
    let id = format!("sp-{}", std::process::id());
    driver.ensure(&spec(&id, &network, &image)).await;
    let pid = driver.reaches(Phase::Running, SOON).await.pid;
    let root = format!("/proc/{pid}/root");
    std::fs::write(format!("{root}/etc/cni/net.d/10-t.conflist"), CNI).unwrap();
    let runtime =
        Runtime::connect(&format!("unix://{root}/run/containerd/containerd.sock")).unwrap();
    network_ready(&runtime).await;

    let config = pod();
    std::fs::create_dir_all(format!("{root}{}/web", config.log_directory)).unwrap();
    let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let sandbox = runtime.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;
    let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: false };
    let status = runtime.pod_sandbox_status(request).await.unwrap().status.unwrap();
    let ip = status.network.unwrap().ip;
    assert!(ip.starts_with("10.244.7."), "{ip}");

    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(container()),
        sandbox_config: Some(config),
    };
    let web = runtime.create_container(request).await.unwrap().container_id;
    let request = StartContainerRequest { container_id: web.clone() };
    runtime.start_container(request).await.unwrap();
    let answer = fetch(&runtime, &web, "http://localhost:8080/hello").await;
    assert!(answer.starts_with("pod: web\nrequest: GET /hello\n"), "{answer}");
    // The host port of the worker leads to the pod, through the portmap plugin.
    let answer = network.busybox(&image, "wget -T 10 -q -O - http://10.0.1.5:18080/port");
    assert!(answer.contains("GET /port"), "{answer}");
    let log = std::fs::read_to_string(format!("{root}/var/log/pods/default_web_u1/web/0.log"));
    assert!(log.unwrap().contains("GET /hello"));

    // Limits are in force in the worker's own part of the hierarchy.
    let limit = format!("marina-worker-{id}/kubepods/burstable/podu1/{web}");
    let old =
        std::fs::read_to_string(format!("/sys/fs/cgroup/memory/{limit}/memory.limit_in_bytes"));
    let limit =
        old.or_else(|_| std::fs::read_to_string(format!("/sys/fs/cgroup/{limit}/memory.max")));
    assert_eq!(limit.unwrap().trim(), (64 << 20).to_string());
    let stats = runtime.list_container_stats(ListContainerStatsRequest::default()).await.unwrap();
    assert_eq!(stats.stats.len(), 1);

    // Preloaded images cannot be pulled again, so they must not be collected.
    let images = runtime.list_images(ListImagesRequest::default()).await.unwrap().images;
    let pinned: HashMap<_, _> = images
        .iter()
        .map(|i| (i.repo_tags.first().cloned().unwrap_or_default(), i.pinned))
        .collect();
    for name in ["registry.k8s.io/pause:3.10", "marina.dev/dns:v1", "marina.dev/demo:v1"] {
        assert_eq!(pinned.get(name), Some(&true), "{pinned:?}");
    }

    runtime.stop_container(&web, Duration::from_secs(2)).await.unwrap();
    let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
    runtime.stop_pod_sandbox(request).await.unwrap();
    let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox };
    runtime.remove_pod_sandbox(request).await.unwrap();
    driver.delete(&id).await;
    assert_nothing_left(&driver, &network, &id);
}
