//! The status of one container.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{View, sizes};
use crate::runtime::observe::{self, State};
use crate::spec::containers::{self, Kind, Restart};

/// The statuses of all containers of one kind, in the spec's order.
pub fn all(view: &View<'_>, kind: Kind) -> Vec<ContainerStatus> {
    let one = |c: &Container| status(view, kind, c);
    match kind {
        Kind::App => containers::app(view.pod).iter().map(one).collect(),
        Kind::Init => containers::init(view.pod).iter().map(one).collect(),
        Kind::Ephemeral => {
            containers::ephemeral(view.pod).iter().map(|e| one(&containers::plain(e))).collect()
        }
    }
}

/// What the API has for this container, to fall back on when the runtime has lost it.
fn known(view: &View<'_>, kind: Kind, name: &str) -> Option<ContainerStatus> {
    let status = view.pod.status.as_ref()?;
    let list = match kind {
        Kind::App => &status.container_statuses,
        Kind::Init => &status.init_container_statuses,
        Kind::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|s| s.name == name).cloned()
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let state = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(state), ..Default::default() }
}

fn terminated(view: &View<'_>, c: &observe::Container) -> ContainerState {
    let by_code = if c.exit_code == 0 { "Completed" } else { "Error" };
    let reason = if c.reason.is_empty() { by_code.to_owned() } else { c.reason.clone() };
    let message = view.messages.get(&c.id).cloned().or_else(|| Some(c.message.clone()));
    let state = ContainerStateTerminated {
        container_id: Some(format!("{}://{}", view.runtime_name, c.id)),
        exit_code: c.exit_code,
        finished_at: c.finished_at.map(Time),
        started_at: c.started_at.or(Some(c.created_at)).map(Time),
        message: message.filter(|m| !m.is_empty()),
        reason: Some(reason),
        signal: None,
    };
    ContainerState { terminated: Some(state), ..Default::default() }
}

fn lost() -> ContainerState {
    let state = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        ..Default::default()
    };
    ContainerState { terminated: Some(state), ..Default::default() }
}

/// A container that the runtime knows nothing about.
fn absent(view: &View<'_>, kind: Kind, spec: &Container) -> ContainerStatus {
    let known = known(view, kind, &spec.name);
    let ended = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.terminated.is_some());
    if let Some(known) = known.clone().filter(|s| ended(s)) {
        return known;
    }
    let known = known.unwrap_or_default();
    let ran = known.state.as_ref().is_some_and(|s| s.running.is_some());
    let (state, last) = match (ran, view.over) {
        (true, true) => (lost(), known.last_state),
        (true, false) => (initial(view, kind, spec), Some(lost())),
        (false, _) => (initial(view, kind, spec), known.last_state),
    };
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        image_id: String::new(),
        state: Some(state),
        last_state: last.filter(|l| *l != ContainerState::default()),
        restart_count: known.restart_count,
        started: Some(false),
        ..Default::default()
    }
}

/// Waiting, with the reason that was found or the one that says what comes first.
fn initial(view: &View<'_>, kind: Kind, spec: &Container) -> ContainerState {
    if let Some(why) = view.waiting.get(&spec.name) {
        return waiting(why.reason, Some(why.message.clone()).filter(|m| !m.is_empty()));
    }
    let behind_init = kind != Kind::Ephemeral && !containers::init(view.pod).is_empty();
    waiting(if behind_init { "PodInitializing" } else { "ContainerCreating" }, None)
}

fn status(view: &View<'_>, kind: Kind, spec: &Container) -> ContainerStatus {
    let mut history = view.runtime.named(&spec.name);
    let Some(latest) = history.next() else { return absent(view, kind, spec) };
    let previous = history.next();
    let restarts = !view.over && Restart::of(view.pod, kind, spec).after(latest.exit_code);
    let waits = view.waiting.get(&spec.name);
    let (state, last) = match latest.state {
        State::Running => {
            let running = ContainerStateRunning { started_at: latest.started_at.map(Time) };
            (ContainerState { running: Some(running), ..Default::default() }, previous)
        }
        State::Exited => match waits.filter(|_| restarts) {
            Some(why) => (waiting(why.reason, Some(why.message.clone())), Some(latest)),
            None => (terminated(view, latest), previous),
        },
        State::Created | State::Unknown => (initial(view, kind, spec), previous),
    };
    let running = latest.state == State::Running;
    let sidecar = containers::is_sidecar(spec);
    let started = running
        && kind != Kind::Ephemeral
        && view.health.started.get(&latest.id).copied().unwrap_or(true);
    let ready = match kind {
        Kind::Init if !sidecar => latest.state == State::Exited && latest.exit_code == 0,
        Kind::Ephemeral => false,
        _ => started && view.health.ready.get(&latest.id).copied().unwrap_or(true),
    };
    let before = known(view, kind, &spec.name).and_then(|s| s.resources);
    let requests = spec.resources.as_ref().and_then(|r| r.requests.clone());
    ContainerStatus {
        allocated_resources: requests.filter(|r| !r.is_empty()),
        resources: Some(sizes::in_effect(spec, latest, before.as_ref())),
        name: spec.name.clone(),
        container_id: Some(format!("{}://{}", view.runtime_name, latest.id)),
        image: if latest.image.is_empty() {
            spec.image.clone().unwrap_or_default()
        } else {
            latest.image.clone()
        },
        image_id: latest.image_ref.clone(),
        state: Some(state),
        last_state: last.filter(|l| l.state == State::Exited).map(|l| terminated(view, l)),
        restart_count: latest.attempt.try_into().unwrap_or(i32::MAX),
        ready,
        started: Some(started && (kind == Kind::App || sidecar)),
        ..Default::default()
    }
}
