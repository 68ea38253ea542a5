//! A sandbox worker from Ensure to Delete, with a real image. Needs root and `MARINA_IMAGE_DIR`.
#![allow(clippy::unwrap_used)]

#[path = "../../local/tests/harness/mod.rs"]
mod harness;

use std::process::Command;
use std::time::Duration;

use driver_api::Phase;
use driver_api::pb::{EnsureRequest, ProbeRequest};
use harness::{Driver, Network, assert_nothing_left, image_dir, sh, spec};

const DRIVER: &str = env!("CARGO_BIN_EXE_marina-driver-sandbox");
const SOON: Duration = Duration::from_secs(30);

/// Runs a command on the worker.
fn on_worker(pid: u32, command: &str) -> String {
    sh(&format!("nsenter -t {pid} -m -p -n -u -i -r -w {command}"))
}

#[tokio::test]
async fn a_worker_lives_through_its_driver_and_leaves_nothing() {
    let image = image_dir();
    let network = Network::new("sb");
    let mut driver = Driver::start(DRIVER).await;
    let probe = driver.client.probe(ProbeRequest {}).await.unwrap().into_inner();
    assert!(probe.usable && probe.memory_mib > 0 && probe.vcpus > 0, "{probe:?}");

    let id = format!("sb-{}", std::process::id());
    let wanted = spec(&id, &network, &image);
    driver.ensure(&wanted).await;
    let running = driver.reaches(Phase::Running, SOON).await;

    // It has its own name, address, memory and control groups, and runs containers.
    let pid = running.pid;
    assert_eq!(on_worker(pid, "hostname").trim(), id);
    assert!(on_worker(pid, "ip -4 addr show eth0").contains("10.0.1.5/16"));
    assert!(on_worker(pid, "cat /proc/meminfo").starts_with("MemTotal: 1048576 kB"));
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains(&format!("/marina-worker-{id}")), "{groups}");
    let said = on_worker(
        pid,
        "ctr --namespace k8s.io run --rm marina.dev/demo:v1 t /bin/echo from the container",
    );
    assert_eq!(said.trim(), "from the container");

    // The driver is killed; the worker does not notice, and the next driver knows it.
    driver.restart().await;
    let found = driver.reaches(Phase::Running, SOON).await;
    assert_eq!(found.pid, pid);
    assert_eq!(driver.ensure(&wanted).await.pid, pid);

    // A container still runs when the worker is deleted.
    on_worker(pid, "ctr --namespace k8s.io run -d marina.dev/demo:v1 left");
    driver.delete(&id).await;
    assert!(driver.list().await.is_empty());
    assert_nothing_left(&driver, &network, &id);
    driver.delete(&id).await;
}

#[tokio::test]
async fn a_worker_that_ended_is_not_started_again() {
    let image = image_dir();
    let network = Network::new("se");
    let mut driver = Driver::start(DRIVER).await;
    let id = format!("se-{}", std::process::id());
    let wanted = spec(&id, &network, &image);
    driver.ensure(&wanted).await;
    let running = driver.reaches(Phase::Running, SOON).await;
    // The polite end: node-init stops everything and ends.
    Command::new("kill").arg(running.pid.to_string()).status().unwrap();
    let ended = driver.reaches(Phase::Exited, SOON).await;
    assert!(ended.message.starts_with("switched itself off"), "{}", ended.message);
    assert_eq!(driver.ensure(&wanted).await.phase(), Phase::Exited);
    driver.delete(&id).await;
    assert_nothing_left(&driver, &network, &id);
}

#[tokio::test]
async fn what_cannot_work_says_why() {
    let image = image_dir();
    let network = Network::new("sx");
    let mut driver = Driver::start(DRIVER).await;
    let good = spec("sx-1", &network, &image);

    let mut wanted = good.clone();
    wanted.netns = "marina-missing".into();
    let status = driver.ensure(&wanted).await;
    assert_eq!(status.phase(), Phase::Failed);
    assert!(status.message.contains("no network namespace marina-missing"), "{}", status.message);

    wanted = good.clone();
    wanted.image_dir = "/nowhere".into();
    let status = driver.ensure(&wanted).await;
    assert!(status.message.contains("no node image at /nowhere"), "{}", status.message);

    wanted = good.clone();
    wanted.worker_id = "../up".into();
    let error = driver.client.ensure(EnsureRequest { spec: Some(wanted) }).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(error.message().starts_with("worker_id: must be"), "{}", error.message());

    // Ensure tries a failed worker again, and Delete removes what the failures left.
    driver.ensure(&good).await;
    driver.reaches(Phase::Running, SOON).await;
    let mut other = good.clone();
    other.cluster_id = "c2".into();
    let error = driver.client.ensure(EnsureRequest { spec: Some(other) }).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::AlreadyExists);
    driver.delete("sx-1").await;
    assert_nothing_left(&driver, &network, "sx-1");
}
