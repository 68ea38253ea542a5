//! What to do next for a pod: a pure function of its spec, what the runtime has, what the
//! probes say and the time.
//!
//! ```text
//! no usable sandbox ──► new sandbox (after everything old is stopped)
//! sandbox ready     ──► init containers one by one; sidecars as soon as the one before started
//! initialised       ──► every ordinary container that should run and does not
//! nothing left to run ─► finished: the pod is stopped, its phase is final
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::backoff::Delay;
use crate::config::duration;
use crate::runtime::labels;
use crate::runtime::observe::{self, State};
use crate::spec::containers::{self, Kind, Restart};
use crate::spec::resize::{self, Known, Resource, Settings};

/// What the probes say about running containers, by container id.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Whether the startup probe has succeeded; `true` for containers without one.
    pub started: HashMap<String, bool>,
    /// Whether the readiness probe succeeds; `true` for containers without one.
    pub ready: HashMap<String, bool>,
    /// Containers that a liveness or startup probe gave up on, with the sentence for the event.
    pub failed: HashMap<String, String>,
}

/// Everything that the decision reads.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a observe::Pod,
    pub health: &'a Health,
    /// Back-off by container name.
    pub delays: &'a HashMap<String, Delay>,
    /// What the runtime was told last of containers' resources, by container id.
    pub told: &'a HashMap<String, Settings>,
    /// Containers that were stopped to be made anew with other resources, by id.
    pub restarting: &'a HashSet<String>,
    pub now: Timestamp,
    /// The same moment on the monotonic clock.
    pub instant: Instant,
}

/// Why a running container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not what the spec says, or nobody knows what it is.
    Wrong,
    /// A probe gave up on it, so the probe's own grace period counts.
    Unhealthy,
    /// It is to be made anew with other resources.
    Resize,
}

/// A running container to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub message: String,
    pub why: Why,
}

/// A resource of a running container to change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Update {
    pub id: String,
    pub name: String,
    pub resource: Resource,
    /// What the container has then.
    pub settings: Settings,
    /// Whether it is less than now.
    pub less: bool,
}

/// A container to make and start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Start {
    pub name: String,
    pub kind: Kind,
    pub attempt: u32,
}

/// A container that may not start yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Waiting {
    pub reason: &'static str,
    pub message: String,
}

/// What to do, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Nothing is left to run; everything is to be stopped and the pod's phase becomes final.
    pub finished: bool,
    /// Stop everything and make a sandbox with this attempt. The rest is empty then.
    pub new_sandbox: Option<u32>,
    /// Containers to stop.
    pub kill: Vec<Kill>,
    /// Containers that were made and never started, to be removed.
    pub remove: Vec<String>,
    /// Resources of running containers to change: memory first, and of each less before more.
    pub update: Vec<Update>,
    /// Containers to start.
    pub start: Vec<Start>,
    /// Containers in back-off.
    pub waiting: BTreeMap<String, Waiting>,
    /// When to look again although nothing changed.
    pub wake_at: Option<Instant>,
    /// Whether a container does not have the resources that it was given.
    pub resizing: bool,
}

impl Plan {
    /// Whether there is nothing to do now.
    pub fn is_idle(&self) -> bool {
        !self.finished
            && self.new_sandbox.is_none()
            && self.kill.is_empty()
            && self.remove.is_empty()
            && self.update.is_empty()
            && self.start.is_empty()
    }
}

/// Whether all ordinary containers ended for good, or an init container failed for good.
fn is_finished(inputs: &Inputs<'_>) -> bool {
    let pod = inputs.pod;
    let ended = |kind: Kind, c: &Container| match inputs.runtime.latest(&c.name) {
        Some(latest) if latest.state == State::Exited => {
            let ended = !inputs.restarting.contains(&latest.id);
            (ended && !Restart::of(pod, kind, c).after(latest.exit_code))
                .then_some(latest.exit_code)
        }
        _ => None,
    };
    let apps = containers::app(pod);
    if !apps.is_empty() && apps.iter().all(|c| ended(Kind::App, c).is_some()) {
        return true;
    }
    let untouched = apps.iter().all(|c| inputs.runtime.latest(&c.name).is_none());
    untouched
        && containers::init(pod).iter().any(|c| {
            !containers::is_sidecar(c) && ended(Kind::Init, c).is_some_and(|code| code != 0)
        })
}

/// The decision.
pub fn plan(inputs: Inputs<'_>) -> Plan {
    let mut plan = Plan::default();
    if is_finished(&inputs) {
        plan.finished = true;
        return plan;
    }
    let needs_ip = !containers::host_network(inputs.pod);
    let sandbox = match inputs.runtime.sandbox() {
        Some(sandbox) if sandbox.ready && !(needs_ip && sandbox.ips.is_empty()) => sandbox,
        other => {
            plan.new_sandbox = Some(other.map_or(0, |s| s.attempt + 1));
            return plan;
        }
    };
    let here = |c: &observe::Container| c.sandbox_id == sandbox.id;
    let initialised =
        containers::app(inputs.pod).iter().any(|c| inputs.runtime.named(&c.name).any(here));
    if !init(&inputs, &sandbox.id, initialised, &mut plan) {
        return plan;
    }
    for container in containers::app(inputs.pod) {
        step(&inputs, Kind::App, container, inputs.runtime.latest(&container.name), &mut plan);
    }
    for container in containers::ephemeral(inputs.pod) {
        if inputs.runtime.latest(&container.name).is_none() {
            plan.start.push(Start {
                name: container.name.clone(),
                kind: Kind::Ephemeral,
                attempt: 0,
            });
        }
    }
    plan.update.sort_by_key(|u| (u.resource, !u.less));
    plan
}

/// Plans the init containers; true when the ordinary ones may run.
fn init(inputs: &Inputs<'_>, sandbox: &str, initialised: bool, plan: &mut Plan) -> bool {
    for container in containers::init(inputs.pod) {
        let latest = inputs.runtime.named(&container.name).find(|c| c.sandbox_id == sandbox);
        if containers::is_sidecar(container) {
            let running = step(inputs, Kind::Init, container, latest, plan);
            let started = running
                && latest
                    .is_some_and(|c| inputs.health.started.get(&c.id).copied().unwrap_or(true));
            if !started && !initialised {
                return false;
            }
            continue;
        }
        if initialised || latest.is_some_and(|c| c.state == State::Exited && c.exit_code == 0) {
            continue;
        }
        step(inputs, Kind::Init, container, latest, plan);
        return false;
    }
    true
}

/// Plans one container; true when it runs and may go on.
fn step(
    inputs: &Inputs<'_>,
    kind: Kind,
    spec: &Container,
    latest: Option<&observe::Container>,
    plan: &mut Plan,
) -> bool {
    let policy = Restart::of(inputs.pod, kind, spec);
    // Counts over all sandboxes, so that the number in the status never goes back.
    let attempt = inputs.runtime.latest(&spec.name).map_or(0, |c| c.attempt + 1);
    let start = Start { name: spec.name.clone(), kind, attempt };
    let Some(latest) = latest else {
        plan.start.push(start);
        return false;
    };
    match latest.state {
        State::Running => running(inputs, kind, spec, latest, plan),
        State::Created => {
            plan.remove.push(latest.id.clone());
            plan.start.push(Start { attempt: latest.attempt, ..start });
            false
        }
        State::Unknown => {
            let message = format!(
                "Container {} is in unknown state, try killing it before restart",
                spec.name
            );
            plan.kill.push(kill(latest, message, Why::Wrong));
            false
        }
        State::Exited if inputs.restarting.contains(&latest.id) => {
            plan.resizing = true;
            plan.start.push(start);
            false
        }
        State::Exited => {
            if policy.after(latest.exit_code) {
                restart(inputs, spec, latest, start, plan);
            }
            false
        }
    }
}

fn kill(container: &observe::Container, message: String, why: Why) -> Kill {
    Kill { id: container.id.clone(), name: container.name.clone(), message, why }
}

/// Plans a running container; true when it may go on.
fn running(
    inputs: &Inputs<'_>,
    kind: Kind,
    spec: &Container,
    latest: &observe::Container,
    plan: &mut Plan,
) -> bool {
    let hash = latest.annotations.get(labels::HASH);
    let (message, why) = if hash.is_some_and(|h| *h != containers::hash(spec)) {
        (format!("Container {} definition changed", spec.name), Why::Wrong)
    } else if let Some(why) = inputs.health.failed.get(&latest.id) {
        (why.clone(), Why::Unhealthy)
    } else if (kind == Kind::App || containers::is_sidecar(spec))
        && !resized(inputs, spec, latest, plan)
    {
        let message = format!("Container {} resize requires restart", spec.name);
        plan.kill.push(kill(latest, message, Why::Resize));
        return false;
    } else {
        return true;
    };
    let message = match Restart::of(inputs.pod, kind, spec) {
        Restart::Never if why == Why::Unhealthy => message,
        _ => format!("{message}, will be restarted"),
    };
    plan.kill.push(kill(latest, message, why));
    false
}

/// Plans the changes of a running container's resources; false when it has to restart for them.
fn resized(
    inputs: &Inputs<'_>,
    spec: &Container,
    latest: &observe::Container,
    plan: &mut Plan,
) -> bool {
    let (made_with, reported) = (latest.made_with(), latest.settings());
    let told = inputs.told.get(&latest.id).copied();
    let due = resize::due(spec, Known { made_with: made_with.as_ref(), told, reported });
    plan.resizing |= due.restart || !due.update.is_empty();
    if due.restart {
        return false;
    }
    let wanted = Settings::of(spec);
    let mut has = reported.or(told).unwrap_or(wanted);
    for resource in due.update {
        let less = has.exceeds(wanted, resource);
        has = has.with(wanted, resource);
        let (id, name) = (latest.id.clone(), latest.name.clone());
        plan.update.push(Update { id, name, resource, settings: has, less });
    }
    true
}

/// Starts a container again, or says until when it has to wait.
fn restart(
    inputs: &Inputs<'_>,
    spec: &Container,
    latest: &observe::Container,
    start: Start,
    plan: &mut Plan,
) {
    let ended = latest.finished_at.unwrap_or(latest.created_at);
    let ago = Duration::try_from(inputs.now.duration_since(ended)).unwrap_or_default();
    let delay = inputs.delays.get(&spec.name).map_or(Duration::ZERO, |d| {
        d.after(inputs.instant.checked_sub(ago).unwrap_or(inputs.instant))
    });
    if ago >= delay {
        plan.start.push(start);
        return;
    }
    let until = inputs.instant + (delay - ago);
    plan.wake_at = Some(plan.wake_at.map_or(until, |at| at.min(until)));
    let message = format!(
        "back-off {} restarting failed container={} pod={}_{}({})",
        duration::show(delay),
        spec.name,
        containers::name(inputs.pod),
        containers::namespace(inputs.pod),
        containers::uid(inputs.pod)
    );
    plan.waiting.insert(spec.name.clone(), Waiting { reason: "CrashLoopBackOff", message });
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
