//! Actions as lines of a script's output.

use provisioner_plan::{Action, StepState};

pub fn describe(action: &Action) -> String {
    match action {
        Action::MakePki { cluster } => format!("{cluster}: make the authorities"),
        Action::PlaceMember { cluster, kind, ordinal, host, ports } => {
            let ports: Vec<String> = ports.iter().map(|(n, p)| format!("{n}={p}")).collect();
            format!("{cluster}: place {}-{ordinal} on {host} {}", kind.as_str(), ports.join(" "))
        }
        Action::IssueCertificates { cluster, member } => {
            format!("{cluster}: issue certificates of {member}")
        }
        Action::StartMember { cluster, member } => format!("{cluster}: start {member}"),
        Action::CreateNode { cluster, group, host, address } => {
            format!("{cluster}: make a worker of {group} on {host} as {address}")
        }
        Action::RemoveNode { cluster, node, .. } => format!("{cluster}: remove {node}"),
        Action::ForgetNode { cluster, node } => format!("{cluster}: forget {node}"),
        Action::RemoveGroup { cluster, group } => format!("{cluster}: forget group {group}"),
        Action::RemoveCluster { cluster } => format!("{cluster}: forget the cluster"),
        Action::ReportCluster { cluster, status } => {
            let done = status.steps.iter().filter(|step| step.state == StepState::Done);
            let done: Vec<&str> = done.map(|step| step.name.as_str()).collect();
            format!(
                "{cluster}: report {:?} (generation {}; done: {}) {}",
                status.phase,
                status.observed_generation,
                done.join(" "),
                status.message
            )
        }
        Action::ReportGroup { cluster, group, status } => format!(
            "{cluster}: report group {group}: {} of {} ready (generation {}) {}",
            status.ready, status.total, status.observed_generation, status.message
        ),
        Action::Event(event) => {
            format!("{}: event {}: {}", event.cluster, event.kind, event.message)
        }
    }
}
