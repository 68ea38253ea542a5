//! Keeps node groups at their size, with workers that work.

use std::net::Ipv4Addr;

use crate::{
    EXITED_MIN_AGE_MS, JOIN_GRACE_MS, NOT_READY_GRACE_MS,
    action::{Action, Severity},
    model::{
        ClusterIntent, ClusterSeen, GroupIntent, MemberKind, MemberState, NodePhase, NodeSeen,
        Observed,
    },
    pod_networks,
    room::Room,
    status::GroupStatus,
};

/// The first addresses of a VPC are its gateways'.
const FIRST_WORKER: u32 = 257;

/// Plans one node group.
pub(crate) fn plan(
    cluster: &ClusterIntent,
    group: &GroupIntent,
    seen: &ClusterSeen,
    observed: &Observed,
    room: &mut Room,
    actions: &mut Vec<Action>,
) {
    let nodes: Vec<&NodeSeen> = seen.nodes.iter().filter(|n| n.group == group.id).collect();
    for node in nodes.iter().filter(|n| n.deleting && !n.present) {
        let (cluster, node) = (cluster.id.clone(), node.id.clone());
        actions.push(Action::ForgetNode { cluster, node });
    }
    let mut live: Vec<&NodeSeen> = nodes.iter().copied().filter(|n| !n.deleting).collect();
    if group.deleting {
        for node in live {
            remove(cluster, node, "Its node group is being deleted.", Severity::Info, actions);
        }
        if nodes.is_empty() {
            let (subject, name) = (format!("node-group/{}", group.name), &group.name);
            let message = format!("Node group {name} is gone.");
            let kind = "NodeGroupDeleted";
            actions.push(Action::event(&cluster.id, kind, Severity::Info, subject, message));
            let (cluster, group) = (cluster.id.clone(), group.id.clone());
            actions.push(Action::RemoveGroup { cluster, group });
            return;
        }
        report(cluster, group, seen, &nodes, "Being deleted.".to_owned(), actions);
        return;
    }
    replace_broken(cluster, seen, observed, &nodes, &mut live, actions);
    scale_down(cluster, group, &mut live, actions);
    let lacking = scale_up(cluster, group, seen, observed, live.len(), room, actions);
    let message = lacking.unwrap_or_else(|| describe(group, &nodes));
    tell_blocked(cluster, group, seen, &message, actions);
    report(cluster, group, seen, &nodes, message, actions);
}

fn remove(
    cluster: &ClusterIntent,
    node: &NodeSeen,
    reason: &str,
    severity: Severity,
    actions: &mut Vec<Action>,
) {
    let kind = if severity == Severity::Warning { "NodeReplaced" } else { "NodeRemoved" };
    let message = format!("Worker {} is being removed. {reason}", node.name);
    let subject = format!("node/{}", node.name);
    actions.push(Action::event(&cluster.id, kind, severity, subject, message));
    let (cluster, node) = (cluster.id.clone(), node.id.clone());
    actions.push(Action::RemoveNode { cluster, node, reason: reason.to_owned() });
}

/// Removes workers that will not come back by themselves; their place is filled by scaling up.
fn replace_broken(
    cluster: &ClusterIntent,
    seen: &ClusterSeen,
    observed: &Observed,
    nodes: &[&NodeSeen],
    live: &mut Vec<&NodeSeen>,
    actions: &mut Vec<Action>,
) {
    let api = seen
        .members
        .iter()
        .any(|m| m.kind == MemberKind::ApiServer && m.state == MemberState::Ready);
    // One at a time: when many are NotReady, the cause is rarely the workers.
    let mut slow_ones = usize::from(nodes.iter().any(|n| n.deleting));
    live.retain(|node| {
        let in_phase = observed.now_ms - node.phase_since_ms;
        let age = observed.now_ms - node.created_ms;
        let reason = match node.phase {
            NodePhase::Exited if age >= EXITED_MIN_AGE_MS => "It exited; a replacement is made.",
            // While no API server answers, nothing is known about Nodes.
            NodePhase::NotReady if api && in_phase >= NOT_READY_GRACE_MS && slow_ones == 0 => {
                slow_ones += 1;
                "It was NotReady for too long; a replacement is made."
            }
            NodePhase::Pending | NodePhase::Booting | NodePhase::Joining
                if api && !node.joined && age >= JOIN_GRACE_MS && slow_ones == 0 =>
            {
                slow_ones += 1;
                "It did not join in time; a replacement is made."
            }
            _ => return true,
        };
        remove(cluster, node, reason, Severity::Warning, actions);
        false
    });
}

/// Removes what is too much: what does not work first, then the newest.
fn scale_down(
    cluster: &ClusterIntent,
    group: &GroupIntent,
    live: &mut Vec<&NodeSeen>,
    actions: &mut Vec<Action>,
) {
    live.sort_by_key(|node| (node.phase != NodePhase::Ready, node.created_ms));
    while live.len() > group.desired {
        let Some(node) = live.pop() else { return };
        let reason = format!("Node group {} was scaled down to {}.", group.name, group.desired);
        remove(cluster, node, &reason, Severity::Info, actions);
    }
}

/// Makes what is missing. Why it cannot, if so.
fn scale_up(
    cluster: &ClusterIntent,
    group: &GroupIntent,
    seen: &ClusterSeen,
    observed: &Observed,
    live: usize,
    room: &mut Room,
    actions: &mut Vec<Action>,
) -> Option<String> {
    let missing = group.desired.saturating_sub(live);
    if missing == 0 {
        return None;
    }
    let api = seen.members.iter().find(|m| m.kind == MemberKind::ApiServer && m.started);
    let Some(api) = api else {
        return Some("Waiting for the control plane.".to_owned());
    };
    let host = observed.host(&api.host)?;
    let mut taken: Vec<Ipv4Addr> = seen.nodes.iter().map(|node| node.address).collect();
    taken.extend(actions.iter().filter_map(|action| match action {
        Action::CreateNode { cluster: of, address, .. } if *of == cluster.id => Some(*address),
        _ => None,
    }));
    let networks = pod_networks::free(cluster, seen, actions);
    for made in 0..missing {
        let lacking = |why: &str| {
            format!("{} of {} workers cannot be made: {why}.", missing - made, group.desired)
        };
        if made == networks {
            return Some(lacking(&pod_networks::exhausted(cluster)));
        }
        let Some(address) = free_address(cluster, &taken) else {
            return Some(format!("The network {} has no address left.", cluster.vpc_cidr));
        };
        if let Err(why) = room.take_worker(host, &group.driver, group.size) {
            return Some(lacking(&why));
        }
        taken.push(address);
        actions.push(Action::CreateNode {
            cluster: cluster.id.clone(),
            group: group.id.clone(),
            host: host.id.clone(),
            address,
        });
    }
    None
}

/// Tells the customer, once, that a group cannot have its workers.
fn tell_blocked(
    cluster: &ClusterIntent,
    group: &GroupIntent,
    seen: &ClusterSeen,
    message: &str,
    actions: &mut Vec<Action>,
) {
    let before = seen.groups.get(&group.id).map(|before| before.message.as_str());
    if message.contains("cannot be made") && before != Some(message) {
        let subject = format!("node-group/{}", group.name);
        let (kind, message) = ("NodeGroupBlocked", message.to_owned());
        actions.push(Action::event(&cluster.id, kind, Severity::Warning, subject, message));
    }
}

fn free_address(cluster: &ClusterIntent, taken: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let first = u32::from(cluster.vpc_cidr.network()).checked_add(FIRST_WORKER)?;
    let last = u32::from(cluster.vpc_cidr.broadcast());
    (first..last)
        // Addresses that look like a network's or a broadcast confuse people and tools.
        .filter(|ip| !matches!(ip & 0xff, 0 | 0xff))
        .map(Ipv4Addr::from)
        .find(|ip| !taken.contains(ip))
}

fn describe(group: &GroupIntent, nodes: &[&NodeSeen]) -> String {
    let failed = nodes.iter().find(|n| n.phase == NodePhase::Failed);
    if let Some(node) = failed {
        let why = node.message.trim_end_matches('.');
        return format!("Worker {} cannot be made: {why}.", node.name);
    }
    let ready = nodes.iter().filter(|n| n.phase == NodePhase::Ready && !n.deleting).count();
    let going = nodes.iter().filter(|n| n.deleting).count();
    match (ready == group.desired, going) {
        (true, 0) => String::new(),
        (true, going) => format!("{going} being removed."),
        (false, _) => format!("{ready} of {} workers are Ready.", group.desired),
    }
}

fn report(
    cluster: &ClusterIntent,
    group: &GroupIntent,
    seen: &ClusterSeen,
    nodes: &[&NodeSeen],
    message: String,
    actions: &mut Vec<Action>,
) {
    let before = seen.groups.get(&group.id);
    let ready = nodes.iter().filter(|n| n.phase == NodePhase::Ready && !n.deleting).count();
    let landed = nodes.len() == group.desired && ready == group.desired && !group.deleting;
    let observed_generation = match before {
        _ if landed => group.generation,
        Some(before) => before.observed_generation,
        None => 0,
    };
    let status = GroupStatus { observed_generation, total: nodes.len(), ready, message };
    if before != Some(&status) {
        let (cluster, group) = (cluster.id.clone(), group.id.clone());
        actions.push(Action::ReportGroup { cluster, group, status });
    }
}
