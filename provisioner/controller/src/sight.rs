//! Reports of agents become rows: members, nodes, hosts, and the events of their changes.

use std::collections::BTreeMap;

use marina_db::{
    Writer,
    clusters::Cluster,
    hosts::{Host, HostDriver, HostReport},
    members::{Member, MemberReport, MemberState},
    nodes::{Node, NodePhase, NodeReport},
};
use provisioner_api::pb;
use provisioner_plan as plan;

use crate::{agents::HostView, execute, region::Region};

/// One row that has to change.
pub(crate) enum Sighting<'a> {
    Member(&'a Member, MemberReport),
    Node(&'a Cluster, &'a Node, NodeReport),
    Host(&'a Host, HostReport),
}

/// What differs between the reports and the rows.
pub(crate) fn compare<'a>(
    region: &'a Region,
    views: &BTreeMap<String, HostView>,
) -> Vec<Sighting<'a>> {
    let mut sightings = Vec::new();
    for host in &region.hosts {
        let Some(view) = views.get(host.id.as_str()) else { continue };
        let report = host_report(host, view);
        if report != host.report {
            sightings.push(Sighting::Host(host, report));
        }
        let Some(report) = view.report.as_deref().filter(|_| view.connected) else { continue };
        let clusters: BTreeMap<&str, &pb::ClusterState> =
            report.clusters.iter().map(|c| (c.id.as_str(), c)).collect();
        for member in region.members.iter().filter(|m| m.host_id == host.id) {
            let state = clusters.get(member.cluster_id.as_str());
            let now = state.and_then(|s| s.members.iter().find(|m| m.id == member.id.as_str()));
            if let Some(report) = now.map(member_report).filter(|now| differs(member, now)) {
                sightings.push(Sighting::Member(member, report));
            }
        }
        for node in region.nodes.iter().filter(|n| n.host_id == host.id) {
            let Some(state) = clusters.get(node.cluster_id.as_str()) else { continue };
            let Ok(cluster) = region.cluster(node.cluster_id.as_str()) else { continue };
            if let Some(report) = node_report(node, state) {
                sightings.push(Sighting::Node(cluster, node, report));
            }
        }
    }
    sightings
}

fn host_report(host: &Host, view: &HostView) -> HostReport {
    let mut now = host.report.clone();
    if !view.connected {
        if !view.problem.is_empty() {
            now.message = format!("Its agent does not answer: {}.", view.problem);
        }
        return now;
    }
    let Some(report) = view.report.as_deref() else { return now };
    let capacity = report.capacity.unwrap_or_default();
    let port = |port: u32| u16::try_from(port).unwrap_or(0);
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    now.vcpus = capacity.vcpus.into();
    now.memory_mib = number(capacity.memory_mib);
    now.disk_gib = number(capacity.disk_free_gib);
    now.port_min = port(capacity.port_min);
    now.port_max = port(capacity.port_max);
    now.gateway.clone_from(&report.gateway);
    now.message.clone_from(&report.message);
    now.drivers = report
        .drivers
        .iter()
        .map(|driver| HostDriver {
            name: driver.name.clone(),
            usable: driver.usable,
            message: driver.message.clone(),
        })
        .collect();
    now
}

fn member_report(state: &pb::MemberState) -> MemberReport {
    let member_state = match state.phase() {
        pb::MemberPhase::Unspecified | pb::MemberPhase::Waiting => MemberState::Waiting,
        pb::MemberPhase::Starting => MemberState::Starting,
        pb::MemberPhase::Ready => MemberState::Ready,
        pb::MemberPhase::Failed => MemberState::Failed,
    };
    MemberReport {
        state: member_state,
        message: state.message.clone(),
        pid: state.pid.into(),
        restarts: state.restarts.into(),
    }
}

fn differs(member: &Member, report: &MemberReport) -> bool {
    (member.state, &member.message, member.pid, member.restarts)
        != (report.state, &report.message, report.pid, report.restarts)
}

fn node_report(node: &Node, state: &pb::ClusterState) -> Option<NodeReport> {
    if node.deletion_requested_ms.is_some() {
        return None;
    }
    let worker = state.workers.iter().find(|w| w.id == node.id.as_str());
    let seen = state.nodes.iter().find(|n| n.name == node.name);
    let worker_sight = match worker.map(pb::WorkerState::phase) {
        None | Some(pb::WorkerPhase::Unspecified | pb::WorkerPhase::Pending) => {
            plan::WorkerSight::Pending
        }
        Some(pb::WorkerPhase::Booting) => plan::WorkerSight::Booting,
        Some(pb::WorkerPhase::Running) => plan::WorkerSight::Running,
        Some(pb::WorkerPhase::Exited) => plan::WorkerSight::Exited,
        Some(pb::WorkerPhase::Broken) => plan::WorkerSight::Broken,
        // It was wanted gone a moment ago, and is wanted again: wait for the next report.
        Some(pb::WorkerPhase::Removing) => return None,
    };
    // A joined worker is not unknown because an agent has just started and not listed it yet.
    if worker_sight == plan::WorkerSight::Pending && node.phase != NodePhase::Pending {
        return None;
    }
    // An agent that has just started knows no Nodes while their API server is down.
    let ended = matches!(worker_sight, plan::WorkerSight::Exited | plan::WorkerSight::Broken);
    if node.joined && !state.nodes_known && !ended {
        return None;
    }
    let node_sight = match seen {
        None => plan::NodeSight::Absent,
        Some(seen) if seen.ready => plan::NodeSight::Ready,
        Some(_) => plan::NodeSight::NotReady,
    };
    let phase = plan::node_phase(worker_sight, node_sight, node.joined);
    let message = match phase {
        plan::NodePhase::Ready => String::new(),
        plan::NodePhase::NotReady => match seen {
            Some(seen) => seen.message.clone(),
            None => "Its Node object is gone.".to_owned(),
        },
        _ => worker.map(|worker| worker.message.clone()).unwrap_or_default(),
    };
    let report =
        NodeReport { phase: to_db(phase), ready: phase == plan::NodePhase::Ready, message };
    let same =
        (node.phase, node.ready, &node.message) == (report.phase, report.ready, &report.message);
    (!same).then_some(report)
}

/// Writes what was seen.
pub(crate) async fn write(tx: &mut Writer, sightings: &[Sighting<'_>]) -> anyhow::Result<()> {
    for sighting in sightings {
        match sighting {
            Sighting::Host(host, report) => tx.report_host(&host.id, report).await?,
            Sighting::Member(member, report) => tx.report_member(&member.id, report).await?,
            Sighting::Node(cluster, node, report) => {
                tx.report_node(&node.id, report).await?;
                let change = (from_db(node.phase), from_db(report.phase));
                let age = tx.now_ms() - node.created_ms;
                let event = (change.0 != change.1)
                    .then(|| {
                        let id = node.cluster_id.as_str();
                        plan::phase_event(id, &node.name, change, &report.message, age)
                    })
                    .flatten();
                if let Some(event) = event {
                    execute::record(tx, cluster, &event).await?;
                }
            }
        }
    }
    Ok(())
}

fn to_db(phase: plan::NodePhase) -> NodePhase {
    match phase {
        plan::NodePhase::Pending => NodePhase::Pending,
        plan::NodePhase::Booting => NodePhase::Booting,
        plan::NodePhase::Joining => NodePhase::Joining,
        plan::NodePhase::Ready => NodePhase::Ready,
        plan::NodePhase::NotReady => NodePhase::NotReady,
        plan::NodePhase::Exited => NodePhase::Exited,
        plan::NodePhase::Failed => NodePhase::Failed,
        plan::NodePhase::Deleting => NodePhase::Deleting,
    }
}

/// The planner's word for a phase in the database.
pub(crate) fn from_db(phase: NodePhase) -> plan::NodePhase {
    match phase {
        NodePhase::Pending => plan::NodePhase::Pending,
        NodePhase::Booting => plan::NodePhase::Booting,
        NodePhase::Joining => plan::NodePhase::Joining,
        NodePhase::Ready => plan::NodePhase::Ready,
        NodePhase::NotReady => plan::NodePhase::NotReady,
        NodePhase::Exited => plan::NodePhase::Exited,
        NodePhase::Failed => plan::NodePhase::Failed,
        NodePhase::Deleting => plan::NodePhase::Deleting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined() -> Node {
        Node {
            id: "n-1".into(),
            cluster_id: "c-1".into(),
            group_id: "g-1".into(),
            name: "w-1".to_owned(),
            host_id: "h-1".into(),
            address: "10.0.1.1".to_owned(),
            mac: String::new(),
            driver: marina_db::clusters::Driver::Sandbox,
            vcpus: 1,
            memory_mib: 1024,
            disk_gib: 10,
            phase: NodePhase::Ready,
            joined: true,
            ready: true,
            message: String::new(),
            phase_since_ms: 0,
            created_ms: 0,
            deletion_requested_ms: None,
            deletion_reason: String::new(),
        }
    }

    #[test]
    fn a_node_is_gone_only_when_nodes_are_known() {
        let state = |phase: pb::WorkerPhase, nodes_known| pb::ClusterState {
            workers: vec![pb::WorkerState {
                id: "n-1".to_owned(),
                phase: phase.into(),
                ..pb::WorkerState::default()
            }],
            nodes_known,
            ..pb::ClusterState::default()
        };
        let report = |phase, known| node_report(&joined(), &state(phase, known));
        assert!(report(pb::WorkerPhase::Running, false).is_none());
        let gone = report(pb::WorkerPhase::Running, true).unwrap();
        assert_eq!(
            (gone.phase, gone.message.as_str()),
            (NodePhase::NotReady, "Its Node object is gone.")
        );
        let exited = report(pb::WorkerPhase::Exited, false).unwrap();
        assert_eq!(exited.phase, NodePhase::Exited);
    }
}
