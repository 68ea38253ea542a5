//! The lives of pods, seen from the API server and from the container runtime.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use cri::Runtime;
use cri::pb;
use serde_json::json;
use support::{World, eventually};

const POD: &str = "/api/v1/namespaces/default/pods/p";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_registers_and_keeps_its_lease() {
    let mut world = World::new().await;
    world.runtime.set_network(false);
    world.start();
    let ready = |world: &World| {
        let node = world.api.get("/api/v1/nodes/n1")?;
        let conditions = node["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|c| c["type"] == "Ready").map(|c| c["status"] == "True")
    };
    eventually("registered, not ready", || ready(&world).filter(|r| !r)).await;
    world.runtime.set_network(true);
    eventually("ready", || ready(&world).filter(|r| *r)).await;
    let node = world.api.get("/api/v1/nodes/n1").unwrap();
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(
        node["status"]["addresses"][0],
        json!({"type": "InternalIP", "address": "127.0.0.1"})
    );
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let lease = eventually("a lease", || world.api.get(lease)).await;
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_restarts_and_is_deleted() {
    let mut world = World::new().await;
    world.start();
    world.create_pod(
        "p",
        json!({"containers": [{"name": "c", "image": "demo:1", "command": ["run", "$(NAME)"],
        "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]}),
    );
    let pod = world.phase("p", "Running").await;
    assert_eq!(pod["status"]["podIP"], "10.244.0.2");
    assert_eq!(world.runtime.config("c").unwrap().command, ["run", "p"]);

    let first = world.runtime.running("c").remove(0);
    world.runtime.exit(&first, 1);
    eventually("restarted", || {
        world.pod("p").filter(|p| p["status"]["containerStatuses"][0]["restartCount"] == 1)
    })
    .await;
    eventually("running again", || world.runtime.running("c").into_iter().find(|id| *id != first))
        .await;

    world.api.delete_gracefully(POD, 7);
    eventually("deleted", || world.pod("p").is_none().then_some(())).await;
    assert_eq!(world.calls("StopContainer c 7"), 1);
    eventually("no sandbox left", || (world.runtime.sandboxes() == 0).then_some(())).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_kubelet_adopts_what_runs() {
    let mut world = World::new().await;
    world.start();
    world.create_pod("p", json!({"containers": [{"name": "c", "image": "demo:1"}]}));
    world.phase("p", "Running").await;
    world.stop().await;
    let before = world.runtime.running("c");
    world.start();
    // A second pod shows that the new kubelet has looked at everything.
    world.create_pod("q", json!({"containers": [{"name": "d", "image": "demo:1"}]}));
    world.phase("q", "Running").await;
    assert_eq!(world.runtime.running("c"), before);
    assert_eq!((world.calls("StartContainer c"), world.calls("StopContainer c")), (1, 0));
    // And that it is in charge: the container's end is noticed.
    world.runtime.exit(&before[0], 0);
    eventually("restarted", || world.runtime.running("c").into_iter().find(|id| *id != before[0]))
        .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_containers_come_first_and_a_job_succeeds() {
    let mut world = World::new().await;
    world.start();
    world.create_pod("p", json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "demo:1"}], "containers": [{"name": "c", "image": "demo:1"}]}));
    let init = eventually("init runs", || world.runtime.running("i").pop()).await;
    assert!(world.runtime.running("c").is_empty());
    world.runtime.exit(&init, 0);
    let main = eventually("main runs", || world.runtime.running("c").pop()).await;
    world.runtime.exit(&main, 0);
    let pod = world.phase("p", "Succeeded").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(world.calls("StartContainer c"), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_not_there_is_told() {
    let mut world = World::new().await;
    world.runtime.fail_pull("missing:1");
    world.start();
    world.create_pod("p", json!({"containers": [{"name": "c", "image": "missing:1"}]}));
    eventually("waiting for its image", || {
        world.pod("p").filter(|p| {
            let reason = &p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
            p["status"]["phase"] == "Pending"
                && (reason == "ErrImagePull" || reason == "ImagePullBackOff")
        })
    })
    .await;
    eventually("an event", || {
        let events = world.api.list("/api/v1/namespaces/default/events");
        events
            .into_iter()
            .find(|e| e["reason"] == "Failed" && e["message"] == "Error: ErrImagePull")
    })
    .await;
    // It can still be deleted.
    world.api.delete_gracefully(POD, 30);
    eventually("deleted", || world.pod("p").is_none().then_some(())).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liveness_decides_about_a_restart_and_readiness_about_ready() {
    let mut world = World::new().await;
    world.runtime.exec_exits("alive", 1);
    world.runtime.exec_exits("ready", 1);
    world.start();
    let probe = |command: &str, threshold: i32| json!({"exec": {"command": [command]}, "periodSeconds": 1, "failureThreshold": threshold});
    world.create_pod(
        "p",
        json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "demo:1",
        "livenessProbe": probe("alive", 2), "readinessProbe": probe("ready", 1)}]}),
    );
    let pod = world.phase("p", "Running").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["ready"], false);
    eventually("killed", || (world.calls("StopContainer c") > 0).then_some(())).await;
    world.runtime.exec_exits("alive", 0);
    world.runtime.exec_exits("ready", 0);
    eventually("ready after the restart", || {
        world.pod("p").filter(|p| {
            let status = &p["status"]["containerStatuses"][0];
            status["ready"] == true && status["restartCount"].as_i64() >= Some(1)
        })
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_cannot_start_is_backed_off() {
    let mut world = World::new().await;
    world.runtime.fail_start("c");
    world.start();
    world.create_pod(
        "p",
        json!({"containers": [{"name": "c", "image": "demo:1", "command": ["nope"]}]}),
    );
    eventually("in back-off", || {
        let waiting = world.pod("p")?["status"]["containerStatuses"][0]["state"]["waiting"].clone();
        (waiting["reason"] == "CrashLoopBackOff").then_some(())
    })
    .await;
    assert!(world.calls("StartContainer c") <= 2, "{:?}", world.runtime.calls());
    world.stop().await;
}

/// A sandbox that no pod in the API claims, made before the kubelet starts.
async fn orphan(world: &World) {
    let runtime = Runtime::connect(&world.endpoint()).unwrap();
    let pairs = [("name", "lost"), ("namespace", "default"), ("uid", "lost-uid")];
    let labels = pairs.map(|(k, v)| (format!("io.kubernetes.pod.{k}"), v.to_owned())).into();
    let metadata = pb::PodSandboxMetadata { name: "lost".into(), ..Default::default() };
    let config = pb::PodSandboxConfig { metadata: Some(metadata), labels, ..Default::default() };
    runtime
        .run_pod_sandbox(pb::RunPodSandboxRequest { config: Some(config), ..Default::default() })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_the_api_does_not_have_are_removed() {
    let mut world = World::new().await;
    orphan(&world).await;
    assert_eq!(world.runtime.sandboxes(), 1);
    world.start();
    eventually("removed", || (world.runtime.sandboxes() == 0).then_some(())).await;
    world.stop().await;
}

fn sized(cpu: &str, memory: &str) -> serde_json::Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

/// Asks for other resources of the first container, as `pods/resize` does.
fn resize(world: &World, resources: &serde_json::Value) {
    let mut pod = world.pod("p").unwrap();
    pod["spec"]["containers"][0]["resources"] = resources.clone();
    world.api.patch(POD, &json!({"spec": {"containers": pod["spec"]["containers"]}}));
}

async fn has(world: &World, resources: &serde_json::Value) {
    eventually("the resources are in effect", || {
        let pod = world.pod("p")?;
        let status = &pod["status"]["containerStatuses"][0];
        (status["resources"] == *resources
            && status["allocatedResources"] == resources["requests"]
            && condition(&pod, "PodResizeInProgress").is_none())
        .then_some(())
    })
    .await;
}

fn condition(pod: &serde_json::Value, kind: &str) -> Option<serde_json::Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_pod_is_resized_and_the_next_kubelet_knows() {
    let mut world = World::new().await;
    world.start();
    let (small, large) = (sized("20m", "20Mi"), sized("30m", "30Mi"));
    world.create_pod(
        "p",
        json!({"containers": [{"name": "c", "image": "demo:1", "resources": small}]}),
    );
    world.phase("p", "Running").await;
    has(&world, &small).await;
    let container = world.runtime.running("c");

    resize(&world, &large);
    has(&world, &large).await;
    assert_eq!(world.runtime.running("c"), container, "it was not restarted");
    let last = format!("UpdateContainerResources c 30 3000 {}", 30 << 20);
    assert_eq!(world.calls("UpdateContainerResources"), 2, "memory, then CPU");
    assert_eq!(world.calls(&last), 1);

    // Less memory than is used: refused, and what is in effect stays.
    let tiny = sized("30m", "10Ki");
    resize(&world, &tiny);
    let failed = eventually("refused", || {
        condition(&world.pod("p")?, "PodResizeInProgress").filter(|c| c["reason"] == "Error")
    })
    .await;
    assert!(
        failed["message"].as_str().unwrap().contains("memory limit (10240) below current usage")
    );
    assert_eq!(world.pod("p").unwrap()["status"]["containerStatuses"][0]["resources"], large);
    world.stop().await;

    // More than the node has, asked for while no kubelet ran: what was given before stays.
    resize(&world, &sized("5000", "30Mi"));
    world.start();
    let pending =
        eventually("infeasible", || condition(&world.pod("p")?, "PodResizePending")).await;
    assert_eq!(pending["reason"], "Infeasible");
    let status = world.pod("p").unwrap()["status"]["containerStatuses"][0].clone();
    assert_eq!(status["allocatedResources"], tiny["requests"]);

    resize(&world, &small);
    has(&world, &small).await;
    assert_eq!(condition(&world.pod("p").unwrap(), "PodResizePending"), None);
    assert_eq!(world.runtime.running("c"), container);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resize_restarts_the_container_when_its_policy_says_so() {
    let mut world = World::new().await;
    world.start();
    let (small, large) = (sized("20m", "20Mi"), sized("20m", "30Mi"));
    world.create_pod(
        "p",
        json!({"restartPolicy": "OnFailure", "containers": [{"name": "c",
        "image": "demo:1", "resources": small,
        "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}]}),
    );
    world.phase("p", "Running").await;
    let before = world.runtime.running("c");
    resize(&world, &large);
    has(&world, &large).await;
    let after = eventually("made anew", || world.runtime.running("c").pop()).await;
    assert_ne!(before, [after]);
    assert_eq!(world.calls("UpdateContainerResources"), 0);
    assert_eq!(world.pod("p").unwrap()["status"]["containerStatuses"][0]["restartCount"], 1);
    world.stop().await;
}
