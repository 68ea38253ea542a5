//! A virtual machine from Ensure to Delete, with a real image. Needs root and `MARINA_IMAGE_DIR`.
#![allow(clippy::unwrap_used)]

#[path = "../../local/tests/harness/mod.rs"]
mod harness;

use std::time::Duration;

use driver_api::Phase;
use driver_api::pb::ProbeRequest;
use harness::{Driver, Network, assert_nothing_left, image_dir, sh, spec};

const DRIVER: &str = env!("CARGO_BIN_EXE_marina-driver-qemu");

/// Generous: an emulated machine on a busy host.
const BOOT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_machine_boots_survives_its_driver_and_leaves_nothing() {
    let image = image_dir();
    let network = Network::new("qm");
    let mut driver = Driver::start(DRIVER).await;
    let probe = driver.client.probe(ProbeRequest {}).await.unwrap().into_inner();
    assert!(probe.usable, "{}", probe.message);

    let id = format!("qm-{}", std::process::id());
    let wanted = spec(&id, &network, &image);
    let started = driver.ensure(&wanted).await;
    assert_ne!(started.phase(), Phase::Failed, "{}", started.message);
    let running = driver.reaches(Phase::Running, BOOT).await;
    let probe = driver.client.probe(ProbeRequest {}).await.unwrap().into_inner();
    println!("{} ({}: {})", running.message, probe.accelerator, probe.message);

    // It is no longer root on the host, and its card is on the cluster's bridge.
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
    let uid = status.lines().find(|l| l.starts_with("Uid:")).unwrap();
    assert!(!uid.split_whitespace().any(|word| word == "0"), "{uid}");
    let tap = sh(&format!("ip -n {} -brief link show master br0 up", network.name));
    assert_eq!(tap.lines().count(), 1, "{tap}");

    driver.restart().await;
    assert_eq!(driver.reaches(Phase::Running, SOON).await.pid, running.pid);

    // A machine that dies is reported, and not started again.
    sh(&format!("kill -9 {}", running.pid));
    let ended = driver.reaches(Phase::Exited, SOON).await;
    assert!(ended.message.starts_with("was ended by signal 9"), "{}", ended.message);
    assert_eq!(driver.ensure(&wanted).await.phase(), Phase::Exited);

    driver.delete(&id).await;
    assert!(driver.list().await.is_empty());
    assert_nothing_left(&driver, &network, &id);
}

#[tokio::test]
async fn too_small_a_disk_is_refused_in_words() {
    let image = image_dir();
    let network = Network::new("qs");
    let mut driver = Driver::start(DRIVER).await;
    let mut wanted = spec("qs-1", &network, &image);
    wanted.disk_gib = 1;
    let status = driver.ensure(&wanted).await;
    assert_eq!(status.phase(), Phase::Failed);
    assert!(status.message.contains("disk_gib: must be at least 2"), "{}", status.message);
    driver.delete("qs-1").await;
    assert_nothing_left(&driver, &network, "qs-1");
}
