//! The kubelet's own numbers, under upstream's names, served at `/metrics`.

use component::metrics;
use cri::pb;

use crate::runtime::watch::World;

/// Counts what runs: pods with a running container, and containers by state.
pub fn running(world: &World) {
    let running: i32 = pb::ContainerState::ContainerRunning.into();
    let things = || world.values().flat_map(|states| states.values());
    let pods = world.values().filter(|states| states.values().any(|s| *s == running)).count();
    metrics::gauge("kubelet_running_pods", &[], pods as f64);
    for (name, state) in [
        ("created", pb::ContainerState::ContainerCreated),
        ("running", pb::ContainerState::ContainerRunning),
        ("exited", pb::ContainerState::ContainerExited),
        ("unknown", pb::ContainerState::ContainerUnknown),
    ] {
        let state: i32 = state.into();
        let count = things().filter(|s| **s == state).count();
        metrics::gauge("kubelet_running_containers", &[("container_state", name)], count as f64);
    }
}

/// Counts a container that was started, or could not be (`error` is the reason).
pub fn started(error: Option<&str>) {
    match error {
        None => metrics::count("kubelet_started_containers_total", &[]),
        Some(reason) => {
            metrics::count("kubelet_started_containers_errors_total", &[("code", reason)])
        }
    }
}
