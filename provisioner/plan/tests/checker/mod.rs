//! A second opinion on plans: looks only at what is planned and what is there, and shares no code
//! with the planner.

use std::collections::{BTreeMap, BTreeSet};

use provisioner_plan::{Action, Intent, MemberKind, MemberState, Observed};

/// Everything that is wrong with a plan.
pub fn audit(intent: &Intent, observed: &Observed, actions: &[Action]) -> Vec<String> {
    let mut wrong = Vec::new();
    ports(observed, actions, &mut wrong);
    addresses(observed, actions, &mut wrong);
    whole_or_nothing(intent, observed, actions, &mut wrong);
    order(observed, actions, &mut wrong);
    removals(observed, actions, &mut wrong);
    sizes(intent, observed, actions, &mut wrong);
    memory(observed, actions, &mut wrong);
    wrong
}

fn ports(observed: &Observed, actions: &[Action], wrong: &mut Vec<String>) {
    let mut taken: BTreeSet<(String, u16)> = BTreeSet::new();
    for cluster in observed.clusters.values() {
        for member in &cluster.members {
            taken.extend(member.ports.iter().map(|port| (member.host.clone(), *port)));
        }
    }
    for action in actions {
        let Action::PlaceMember { host, ports, .. } = action else { continue };
        let range = observed.hosts.iter().find(|h| h.id == *host).map(|h| h.ports);
        for (_, port) in ports {
            if !taken.insert((host.clone(), *port)) {
                wrong.push(format!("port {port} of {host} is given twice"));
            }
            if range.is_none_or(|(first, last)| *port < first || *port > last) {
                wrong.push(format!("port {port} is not one of {host}"));
            }
        }
    }
}

fn addresses(observed: &Observed, actions: &[Action], wrong: &mut Vec<String>) {
    let mut taken = BTreeSet::new();
    for (id, cluster) in &observed.clusters {
        taken.extend(cluster.nodes.iter().map(|node| (id.clone(), node.address)));
    }
    for action in actions {
        let Action::CreateNode { cluster, address, .. } = action else { continue };
        if !taken.insert((cluster.clone(), *address)) {
            wrong.push(format!("address {address} of {cluster} is given twice"));
        }
    }
}

fn whole_or_nothing(
    intent: &Intent,
    observed: &Observed,
    actions: &[Action],
    wrong: &mut Vec<String>,
) {
    for cluster in &intent.clusters {
        let placed: Vec<&str> = actions
            .iter()
            .filter_map(|action| match action {
                Action::PlaceMember { cluster: of, host, .. } if *of == cluster.id => {
                    Some(host.as_str())
                }
                _ => None,
            })
            .collect();
        if placed.is_empty() {
            continue;
        }
        let seen = observed.clusters.get(&cluster.id);
        let have = seen.map_or(0, |seen| seen.members.len());
        let need = if cluster.ha { 9 } else { 4 };
        if have + placed.len() != need {
            wrong.push(format!("{} would be half placed: {have} + {}", cluster.id, placed.len()));
        }
        let alive = |id: &str| observed.hosts.iter().any(|h| h.id == id && h.alive);
        if have == 0 && !placed.iter().all(|host| alive(host)) {
            wrong.push(format!("{} is placed on a dead host", cluster.id));
        }
    }
}

fn order(observed: &Observed, actions: &[Action], wrong: &mut Vec<String>) {
    for action in actions {
        let Action::StartMember { cluster, member } = action else { continue };
        let members = &observed.clusters[cluster].members;
        let Some(member) = members.iter().find(|m| m.id == *member) else {
            wrong.push(format!("{member} of {cluster} is started before it is placed"));
            continue;
        };
        if member.certificates_until_ms.is_none() {
            wrong.push(format!("{} is started without certificates", member.id));
        }
        let ready = |kind| members.iter().any(|m| m.kind == kind && m.state == MemberState::Ready);
        let early = match member.kind {
            MemberKind::Etcd => false,
            MemberKind::ApiServer => !ready(MemberKind::Etcd),
            _ => !ready(MemberKind::ApiServer),
        };
        if early {
            wrong.push(format!("{} is started too early", member.id));
        }
    }
}

fn removals(observed: &Observed, actions: &[Action], wrong: &mut Vec<String>) {
    for action in actions {
        match action {
            Action::ForgetNode { cluster, node } => {
                let nodes = &observed.clusters[cluster].nodes;
                if nodes.iter().any(|n| n.id == *node && (n.present || !n.deleting)) {
                    wrong.push(format!("{node} is forgotten while it is there"));
                }
            }
            Action::RemoveCluster { cluster } => {
                let present = observed.clusters.get(cluster).map(|c| c.present_on.clone());
                if present.is_some_and(|hosts| !hosts.is_empty()) {
                    wrong.push(format!("{cluster} is forgotten while it is on a host"));
                }
            }
            _ => {}
        }
    }
}

fn sizes(intent: &Intent, observed: &Observed, actions: &[Action], wrong: &mut Vec<String>) {
    let removed = |id: &str| {
        actions.iter().any(|a| matches!(a, Action::RemoveNode { node, .. } if node == id))
    };
    for cluster in &intent.clusters {
        let seen = observed.clusters.get(&cluster.id);
        for group in &cluster.groups {
            let live = seen.map_or(0, |seen| {
                let of_group = seen.nodes.iter().filter(|n| n.group == group.id && !n.deleting);
                of_group.filter(|n| !removed(&n.id)).count()
            });
            let made = actions
                .iter()
                .filter(|a| matches!(a, Action::CreateNode { group: of, .. } if *of == group.id));
            if live + made.count() > group.desired.max(live) {
                wrong.push(format!("group {} gets more than it wants", group.name));
            }
        }
    }
}

/// Virtual machines never take more memory than their host has.
fn memory(observed: &Observed, actions: &[Action], wrong: &mut Vec<String>) {
    let mut used: BTreeMap<&str, u64> = BTreeMap::new();
    for node in observed.clusters.values().flat_map(|c| &c.nodes).filter(|n| n.driver == "qemu") {
        *used.entry(&node.host).or_default() += node.size.memory_mib;
    }
    for host in &observed.hosts {
        let makes = actions
            .iter()
            .any(|a| matches!(a, Action::CreateNode { host: on, .. } if *on == host.id));
        if makes && used.get(host.id.as_str()).copied().unwrap_or(0) > host.memory_mib {
            wrong.push(format!("host {} is given more than it has", host.name));
        }
    }
}
