//! The pod's conditions. Those of other writers are kept; the kubelet's own keep their
//! transition time while their status stays the same.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{View, phase};
use crate::spec::containers;

/// The pod asks for other resources than it was given.
pub const RESIZE_PENDING: &str = "PodResizePending";
/// Containers do not have the resources yet that the pod was given.
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

/// Conditions that the kubelet writes.
pub const OWN: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    RESIZE_PENDING,
    RESIZE_IN_PROGRESS,
];

/// A condition that is there only while it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its type.
    pub kind: &'static str,
    /// Empty for none.
    pub reason: &'static str,
    /// Empty for none.
    pub message: String,
    /// Of the spec that it is about.
    pub generation: Option<i64>,
}

struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self { holds: true, reason: "", message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { holds: false, reason, message }
    }
}

fn initialized(
    view: &View<'_>,
    phase: &str,
    init: &[ContainerStatus],
    app: &[ContainerStatus],
) -> Verdict {
    let began = app.iter().any(|s| s.container_id.is_some());
    let missing: Vec<_> = phase::uninitialised(view.pod, init).collect();
    match (phase, missing.is_empty() || began) {
        ("Succeeded", _) => Verdict { holds: true, reason: "PodCompleted", message: String::new() },
        (_, true) => Verdict::yes(),
        _ => Verdict::no(
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", missing.join(" ")),
        ),
    }
}

fn containers_ready(
    view: &View<'_>,
    phase: &str,
    init: &[ContainerStatus],
    app: &[ContainerStatus],
) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no("PodCompleted", String::new()),
        "Failed" => return Verdict::no("PodFailed", String::new()),
        _ => {}
    }
    let sidecars = containers::init(view.pod)
        .iter()
        .zip(init)
        .filter(|(spec, _)| containers::is_sidecar(spec));
    let relevant = sidecars.map(|(_, status)| status).chain(app);
    let unready: Vec<_> = relevant.filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    if unready.is_empty() && !app.is_empty() {
        return Verdict::yes();
    }
    Verdict::no(
        "ContainersNotReady",
        format!("containers with unready status: [{}]", unready.join(" ")),
    )
}

/// Ready is ContainersReady and every readiness gate.
fn ready(view: &View<'_>, old: &PodStatus, containers: &Verdict) -> Verdict {
    if !containers.holds {
        return Verdict::no(containers.reason, containers.message.clone());
    }
    let status_of = |gate: &str| {
        old.conditions.iter().flatten().find(|c| c.type_ == gate).map(|c| c.status.as_str())
    };
    let gates = containers::spec(view.pod).readiness_gates.as_deref().unwrap_or_default();
    let closed: Vec<_> = gates
        .iter()
        .map(|g| g.condition_type.as_str())
        .filter(|gate| status_of(gate) != Some("True"))
        .map(|gate| match status_of(gate) {
            Some(status) => {
                format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {status}")
            }
            None => {
                format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")
            }
        })
        .collect();
    if closed.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ReadinessGatesNotReady", closed.join(", "))
    }
}

fn condition(
    view: &View<'_>,
    before: Option<&PodCondition>,
    kind: &str,
    (verdict, generation): (Verdict, Option<i64>),
) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let since = before.filter(|b| b.status == status).and_then(|b| b.last_transition_time.clone());
    let text = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: text(verdict.reason),
        message: text(&verdict.message),
        last_transition_time: since.or(Some(Time(view.now))),
        last_probe_time: None,
        observed_generation: generation,
    }
}

/// All conditions of the new status.
pub fn build(
    view: &View<'_>,
    old: &PodStatus,
    phase: &str,
    init: &[ContainerStatus],
    app: &[ContainerStatus],
) -> Vec<PodCondition> {
    let containers_ready = containers_ready(view, phase, init, app);
    let ready = ready(view, old, &containers_ready);
    let sandbox = view
        .runtime
        .sandbox()
        .is_some_and(|s| s.ready && (containers::host_network(view.pod) || !s.ips.is_empty()));
    let sandbox = if sandbox {
        Verdict::yes()
    } else {
        Verdict { holds: false, reason: "", message: String::new() }
    };
    let own = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized(view, phase, init, app)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ];
    let mut conditions = Vec::new();
    for (kind, verdict) in own {
        let before = old.conditions.iter().flatten().find(|c| c.type_ == kind);
        if let (Some(before), "PodScheduled") = (before, kind) {
            conditions.push(before.clone());
            continue;
        }
        let generation = view.pod.metadata.generation;
        conditions.push(condition(view, before, kind, (verdict, generation)));
    }
    for standing in view.standing {
        let before = old.conditions.iter().flatten().find(|c| c.type_ == standing.kind);
        let Standing { kind, reason, message, generation } = standing.clone();
        let verdict = Verdict { holds: true, reason, message };
        conditions.push(condition(view, before, kind, (verdict, generation)));
    }
    let foreign = old.conditions.iter().flatten().filter(|c| !OWN.contains(&c.type_.as_str()));
    conditions.extend(foreign.cloned());
    conditions
}
