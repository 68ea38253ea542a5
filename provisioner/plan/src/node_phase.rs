//! Where a worker is in its life, from what its host and its cluster say about it.

use crate::{
    action::{NewEvent, Severity},
    model::NodePhase,
};

/// What a driver says about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerSight {
    /// Nothing yet.
    Pending,
    /// Its process runs, its services not all.
    Booting,
    /// Its services run.
    Running,
    /// Its process ended.
    Exited,
    /// It could not be made.
    Broken,
}

/// What the tenant's API says about a Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeSight {
    /// There is none.
    Absent,
    /// It is not Ready.
    NotReady,
    /// It is Ready.
    Ready,
}

/// The phase. `joined`: its Node was Ready before. A machine that ended counts before what the
/// Node says, which is known only after the kubelet's lease ran out.
pub fn node_phase(worker: WorkerSight, node: NodeSight, joined: bool) -> NodePhase {
    match (worker, node) {
        (WorkerSight::Exited, _) => NodePhase::Exited,
        (WorkerSight::Broken, _) => NodePhase::Failed,
        (WorkerSight::Booting | WorkerSight::Running, NodeSight::Ready) => NodePhase::Ready,
        (WorkerSight::Booting | WorkerSight::Running, _) if joined => NodePhase::NotReady,
        (WorkerSight::Running, _) | (WorkerSight::Booting, NodeSight::NotReady) => {
            NodePhase::Joining
        }
        (WorkerSight::Booting, NodeSight::Absent) => NodePhase::Booting,
        (WorkerSight::Pending, _) if joined => NodePhase::NotReady,
        (WorkerSight::Pending, _) => NodePhase::Pending,
    }
}

/// What to tell the customer when a node's phase changes, if anything.
pub fn phase_event(
    cluster: &str,
    node: &str,
    (from, to): (NodePhase, NodePhase),
    message: &str,
    age_ms: i64,
) -> Option<NewEvent> {
    let because = match message.trim_end_matches('.') {
        "" => ".".to_owned(),
        message => format!(": {message}."),
    };
    let (kind, severity, message) = match (from, to) {
        (NodePhase::NotReady, NodePhase::Ready) => {
            ("NodeRecovered", Severity::Info, format!("Worker {node} is Ready again."))
        }
        (_, NodePhase::Ready) => {
            let (whole, tenth) = (age_ms / 1000, age_ms % 1000 / 100);
            let message = format!("Worker {node} joined and is Ready after {whole}.{tenth} s.");
            ("NodeReady", Severity::Info, message)
        }
        (_, NodePhase::NotReady) => {
            ("NodeNotReady", Severity::Warning, format!("Worker {node} is NotReady{because}"))
        }
        (_, NodePhase::Exited) => {
            ("NodeExited", Severity::Warning, format!("Worker {node} exited{because}"))
        }
        (_, NodePhase::Failed) => {
            ("NodeFailed", Severity::Warning, format!("Worker {node} cannot be made{because}"))
        }
        _ => return None,
    };
    let (cluster, subject) = (cluster.to_owned(), format!("node/{node}"));
    Some(NewEvent { cluster, kind, severity, subject, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_ended_is_exited_whatever_its_node_says() {
        for node in [NodeSight::Absent, NodeSight::NotReady, NodeSight::Ready] {
            for joined in [false, true] {
                assert_eq!(node_phase(WorkerSight::Exited, node, joined), NodePhase::Exited);
            }
        }
    }

    #[test]
    fn a_new_worker_goes_through_its_phases() {
        let phases = [
            (WorkerSight::Pending, NodeSight::Absent, NodePhase::Pending),
            (WorkerSight::Booting, NodeSight::Absent, NodePhase::Booting),
            (WorkerSight::Running, NodeSight::Absent, NodePhase::Joining),
            (WorkerSight::Running, NodeSight::NotReady, NodePhase::Joining),
            (WorkerSight::Running, NodeSight::Ready, NodePhase::Ready),
        ];
        for (worker, node, phase) in phases {
            assert_eq!(node_phase(worker, node, false), phase);
        }
        assert_eq!(
            node_phase(WorkerSight::Running, NodeSight::NotReady, true),
            NodePhase::NotReady
        );
    }
}
