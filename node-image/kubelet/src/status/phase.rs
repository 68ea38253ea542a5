//! `status.phase` out of the containers' statuses.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use crate::spec::containers::{self, Restart};

/// The exit code of a container that ended.
pub fn exit_code(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code)
}

/// The exit code of a container that ended before and waits to be started again.
fn last_exit_code(status: &ContainerStatus) -> Option<i32> {
    let waits = status.state.as_ref().is_none_or(|s| s.waiting.is_some());
    status.last_state.as_ref().filter(|_| waits)?.terminated.as_ref().map(|t| t.exit_code)
}

/// Init containers that are not through: not exited with 0, or for sidecars not started.
pub fn uninitialised<'a>(
    pod: &'a Pod,
    init: &'a [ContainerStatus],
) -> impl Iterator<Item = &'a str> {
    let through = |(spec, status): &(&Container, &ContainerStatus)| {
        if containers::is_sidecar(spec) {
            status.started == Some(true)
        } else {
            exit_code(status) == Some(0)
        }
    };
    containers::init(pod)
        .iter()
        .zip(init)
        .filter(move |pair| !through(pair))
        .map(|(spec, _)| spec.name.as_str())
}

/// The phase. `over` says that nothing will run any more, whatever the restart policy.
pub fn phase(
    pod: &Pod,
    init: &[ContainerStatus],
    app: &[ContainerStatus],
    over: bool,
) -> &'static str {
    let policy = Restart::of_pod(pod);
    let untouched = app
        .iter()
        .all(|s| exit_code(s).is_none() && last_exit_code(s).is_none() && s.container_id.is_none());
    if untouched && uninitialised(pod, init).next().is_some() {
        let failed = containers::init(pod).iter().zip(init).any(|(spec, status)| {
            !containers::is_sidecar(spec) && exit_code(status).is_some_and(|code| code != 0)
        });
        return if failed && (policy == Restart::Never || over) { "Failed" } else { "Pending" };
    }
    let running = app.iter().any(|s| s.state.as_ref().is_some_and(|state| state.running.is_some()));
    if running {
        return "Running";
    }
    if app.iter().any(|s| exit_code(s).is_none()) {
        // Waiting: for the first time, or between two runs.
        let ran = app.iter().any(|s| last_exit_code(s).is_some() || exit_code(s).is_some());
        return match (over, ran) {
            (true, _) => "Failed",
            (false, true) => "Running",
            (false, false) => "Pending",
        };
    }
    let succeeded = app.iter().all(|s| exit_code(s) == Some(0));
    match (over, policy, succeeded) {
        (true, _, true) => "Succeeded",
        (true, _, false) => "Failed",
        (false, Restart::Always, _) => "Running",
        (false, _, true) => "Succeeded",
        (false, Restart::Never, false) => "Failed",
        (false, Restart::OnFailure, false) => "Running",
    }
}
