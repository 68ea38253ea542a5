//! What to tell people about a cluster: its phase, its steps, one sentence, and events.

use crate::{
    action::{Action, Severity},
    model::{ClusterIntent, ClusterSeen, MemberKind, MemberSeen, MemberState, Observed},
};

/// Where a cluster is in its life; see `marina_db::observed::ClusterPhase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not placed.
    Pending,
    /// Being made.
    Provisioning,
    /// Serving.
    Ready,
    /// Was ready; a part is down.
    Degraded,
    /// Going away.
    Deleting,
}

/// State of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Not begun.
    Waiting,
    /// Going on.
    Running,
    /// Finished.
    Done,
    /// Cannot go on now.
    Failed,
}

/// A step of provisioning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Stable name.
    pub name: String,
    /// For people.
    pub title: String,
    /// State.
    pub state: StepState,
    /// Why it waits or failed.
    pub message: String,
    /// When it began (Unix ms).
    pub started_ms: Option<i64>,
    /// When it was done (Unix ms).
    pub finished_ms: Option<i64>,
}

/// A cluster's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Phase.
    pub phase: Phase,
    /// One sentence.
    pub message: String,
    /// Generation that has been acted on.
    pub observed_generation: i64,
    /// Steps in order.
    pub steps: Vec<Step>,
    /// When it first served (Unix ms).
    pub ready_ms: Option<i64>,
}

/// A node group's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Generation that has been acted on.
    pub observed_generation: i64,
    /// Workers that exist.
    pub total: usize,
    /// Workers whose Node is Ready.
    pub ready: usize,
    /// One sentence.
    pub message: String,
}

/// Plans the deletion of a cluster: the agents are told by its absence, the rows go last.
pub(crate) fn plan_deletion(
    cluster: &ClusterIntent,
    seen: &ClusterSeen,
    observed: &Observed,
    actions: &mut Vec<Action>,
) {
    if seen.present_on.is_empty() {
        actions.push(Action::event(
            &cluster.id,
            "ClusterDeleted",
            Severity::Info,
            "cluster".to_owned(),
            "The cluster and everything that it had is gone.".to_owned(),
        ));
        actions.push(Action::RemoveCluster { cluster: cluster.id.clone() });
        return;
    }
    let names: Vec<String> = seen
        .present_on
        .iter()
        .map(|id| match observed.host(id) {
            Some(host) if host.alive => host.name.clone(),
            Some(host) => format!("{} (which does not answer)", host.name),
            None => id.clone(),
        })
        .collect();
    let before = seen.status.clone();
    let status = ClusterStatus {
        phase: Phase::Deleting,
        message: format!("Being removed from host {}.", names.join(", ")),
        observed_generation: before.as_ref().map_or(0, |b| b.observed_generation),
        steps: before.as_ref().map(|b| b.steps.clone()).unwrap_or_default(),
        ready_ms: before.as_ref().and_then(|b| b.ready_ms),
    };
    if before.as_ref().is_none_or(|before| before.phase != Phase::Deleting) {
        actions.push(Action::event(
            &cluster.id,
            "ClusterDeleting",
            Severity::Info,
            "cluster".to_owned(),
            "The cluster is being deleted.".to_owned(),
        ));
    }
    if before.as_ref() != Some(&status) {
        actions.push(Action::ReportCluster { cluster: cluster.id.clone(), status });
    }
}

/// Plans what to write about a cluster.
pub(crate) fn plan_status(
    cluster: &ClusterIntent,
    seen: &ClusterSeen,
    observed: &Observed,
    blocked: Option<String>,
    actions: &mut Vec<Action>,
) {
    let before = seen.status.as_ref();
    let status = compute(cluster, seen, observed, blocked);
    if before == Some(&status) {
        return;
    }
    events(cluster, before, &status, actions);
    actions.push(Action::ReportCluster { cluster: cluster.id.clone(), status });
}

fn compute(
    cluster: &ClusterIntent,
    seen: &ClusterSeen,
    observed: &Observed,
    blocked: Option<String>,
) -> ClusterStatus {
    let before = seen.status.as_ref();
    let steps = steps(cluster, seen, observed, blocked.as_deref());
    let was_ready = before.and_then(|b| b.ready_ms);
    let complete = steps.iter().all(|step| step.state == StepState::Done);
    let ready_ms = was_ready.or(complete.then_some(observed.now_ms));
    let down = down(cluster, seen);
    let (phase, message) = match (ready_ms, blocked, down) {
        (Some(_), _, None) => (Phase::Ready, "The control plane serves.".to_owned()),
        (Some(_), _, Some(down)) => (Phase::Degraded, down),
        (None, Some(blocked), _) if seen.members.is_empty() => (Phase::Pending, blocked),
        (None, Some(blocked), _) => (Phase::Provisioning, blocked),
        (None, None, _) => (Phase::Provisioning, current(&steps)),
    };
    let landed = phase == Phase::Ready;
    let observed_generation = match before {
        _ if landed => cluster.generation,
        Some(before) => before.observed_generation,
        None => 0,
    };
    ClusterStatus { phase, message, observed_generation, steps, ready_ms }
}

fn current(steps: &[Step]) -> String {
    let step = steps.iter().find(|step| step.state != StepState::Done);
    match step {
        Some(step) if step.message.is_empty() => format!("{}.", step.title),
        Some(step) => format!("{}: {}", step.title, step.message),
        None => String::new(),
    }
}

/// What is down of a control plane that should serve.
fn down(cluster: &ClusterIntent, seen: &ClusterSeen) -> Option<String> {
    let mut parts = Vec::new();
    for kind in MemberKind::ALL {
        let members: Vec<_> = seen.members.iter().filter(|m| m.kind == kind).collect();
        for member in members.iter().filter(|m| m.state != MemberState::Ready) {
            let message = member.message.trim_end_matches('.');
            let name = match cluster.ha {
                true => format!("{}-{}", kind.as_str(), member.ordinal),
                false => kind.as_str().to_owned(),
            };
            parts.push(match message {
                "" => format!("{name} is not ready"),
                message => format!("{name} is not ready ({message})"),
            });
        }
    }
    // Without a message it is being looked at: an agent that has just started.
    if !seen.vpc_ready && !seen.vpc_message.is_empty() {
        parts.push(format!("the cluster's network is not ready ({})", seen.vpc_message));
    }
    (!parts.is_empty()).then(|| format!("{}.", parts.join("; ")))
}

/// What one step is about: whether it is done, whether it has begun, and what there is to say.
struct Progress {
    begun: bool,
    done: bool,
    message: String,
}

fn steps(
    cluster: &ClusterIntent,
    seen: &ClusterSeen,
    observed: &Observed,
    blocked: Option<&str>,
) -> Vec<Step> {
    let placed = !seen.members.is_empty();
    let certified = placed && seen.members.iter().all(|m| m.certificates_until_ms.is_some());
    let placement =
        Progress { begun: true, done: placed, message: blocked.unwrap_or_default().to_owned() };
    let certificates = Progress { begun: placed, done: certified, message: String::new() };
    let vpc = Progress { begun: placed, done: seen.vpc_ready, message: seen.vpc_message.clone() };
    let etcd = members(cluster, seen, &[MemberKind::Etcd]);
    let api = members(cluster, seen, &[MemberKind::ApiServer]);
    let rest = members(cluster, seen, &[MemberKind::ControllerManager, MemberKind::Scheduler]);
    let addons =
        Progress { begun: api.done, done: seen.addons_done, message: seen.addons_message.clone() };
    let table = [
        ("placement", "Choose a host", placement),
        ("certificates", "Issue certificates", certificates),
        ("network", "Make the cluster's network", vpc),
        ("etcd", "Start etcd", etcd),
        ("api-server", "Start the API server", api),
        ("controllers", "Start the controllers and the scheduler", rest),
        ("add-ons", "Install DNS and node access", addons),
    ];
    let old = seen.status.as_ref().map(|status| status.steps.as_slice()).unwrap_or_default();
    table
        .into_iter()
        .map(|(name, title, progress)| {
            let old = old.iter().find(|step| step.name == name);
            step(name, title, progress, old, observed.now_ms)
        })
        .collect()
}

fn step(name: &str, title: &str, now: Progress, old: Option<&Step>, now_ms: i64) -> Step {
    // A finished step stays finished: steps tell the story of provisioning, the phase tells of now.
    if let Some(old) = old.filter(|old| old.state == StepState::Done) {
        return old.clone();
    }
    let started_ms = old.and_then(|old| old.started_ms);
    let started_ms = started_ms.or((now.begun || now.done).then_some(now_ms));
    let state = match (now.done, now.begun, now.message.is_empty()) {
        (true, ..) => StepState::Done,
        (false, false, _) => StepState::Waiting,
        (false, true, true) => StepState::Running,
        (false, true, false) => StepState::Failed,
    };
    Step {
        name: name.to_owned(),
        title: title.to_owned(),
        state,
        message: if now.done { String::new() } else { now.message },
        started_ms,
        finished_ms: now.done.then_some(now_ms),
    }
}

fn members(cluster: &ClusterIntent, seen: &ClusterSeen, kinds: &[MemberKind]) -> Progress {
    let of_kinds: Vec<&MemberSeen> =
        seen.members.iter().filter(|m| kinds.contains(&m.kind)).collect();
    let expected: usize = kinds.iter().map(|kind| kind.count(cluster.ha)).sum();
    let ready = of_kinds.iter().filter(|m| m.state == MemberState::Ready).count();
    let failed = of_kinds.iter().find(|m| m.state == MemberState::Failed);
    Progress {
        begun: of_kinds.iter().any(|m| m.started),
        done: ready == expected,
        message: failed.map(|m| format!("{}: {}", m.kind.as_str(), m.message)).unwrap_or_default(),
    }
}

fn events(
    cluster: &ClusterIntent,
    before: Option<&ClusterStatus>,
    status: &ClusterStatus,
    actions: &mut Vec<Action>,
) {
    let old = before.map(|before| before.phase);
    let first_ready = status.ready_ms.filter(|_| before.is_none_or(|b| b.ready_ms.is_none()));
    let (kind, severity, message) = match (old, status.phase) {
        _ if first_ready.is_some() => {
            let took = first_ready.map_or(0, |at| (at - cluster.created_ms).max(0));
            let message =
                format!("Control plane ready in {}.{} s.", took / 1000, took % 1000 / 100);
            ("ClusterReady", Severity::Info, message)
        }
        (Some(Phase::Degraded), Phase::Ready) => {
            ("ClusterRecovered", Severity::Info, "The control plane serves again.".to_owned())
        }
        (Some(Phase::Ready), Phase::Degraded) => {
            ("ClusterDegraded", Severity::Warning, status.message.clone())
        }
        (_, Phase::Pending) if before.is_none_or(|b| b.message != status.message) => {
            ("ClusterBlocked", Severity::Warning, status.message.clone())
        }
        (None | Some(Phase::Pending), Phase::Provisioning) => {
            ("ClusterProvisioning", Severity::Info, "The control plane is being made.".to_owned())
        }
        _ => return,
    };
    actions.push(Action::event(&cluster.id, kind, severity, "cluster".to_owned(), message));
}
