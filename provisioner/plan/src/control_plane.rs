//! Places, certifies and starts the members of a control plane, in order.

use crate::{
    RENEW_CERTIFICATES_MS,
    action::Action,
    model::{ClusterIntent, ClusterSeen, MemberKind, MemberSeen, MemberState, Observed},
    room::Room,
};

/// Plans one control plane; returns why it cannot be placed, if so.
pub(crate) fn plan(
    cluster: &ClusterIntent,
    seen: &ClusterSeen,
    observed: &Observed,
    room: &mut Room,
    actions: &mut Vec<Action>,
) -> Option<String> {
    if let Err(blocked) = place(cluster, seen, observed, room, actions) {
        return Some(blocked);
    }
    if !seen.has_pki {
        actions.push(Action::MakePki { cluster: cluster.id.clone() });
        return None;
    }
    certify(cluster, seen, observed, actions);
    start(cluster, seen, actions);
    None
}

/// All members go to one host: between hosts there is no network for members yet, and a control
/// plane on one host is whole as long as the host is.
fn place(
    cluster: &ClusterIntent,
    seen: &ClusterSeen,
    observed: &Observed,
    room: &mut Room,
    actions: &mut Vec<Action>,
) -> Result<(), String> {
    let missing: Vec<(MemberKind, usize)> = MemberKind::ALL
        .iter()
        .flat_map(|kind| (0..kind.count(cluster.ha)).map(|ordinal| (*kind, ordinal)))
        .filter(|(kind, at)| !seen.members.iter().any(|m| m.kind == *kind && m.ordinal == *at))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let home = match seen.members.first() {
        Some(member) => member.host.clone(),
        None => room.place(observed, cluster.ha)?,
    };
    for (kind, ordinal) in missing {
        let Some(ports) = room.take_member(&home, kind) else {
            let name = observed.host(&home).map_or(home.as_str(), |host| host.name.as_str());
            return Err(format!("Host {name} has no ports left."));
        };
        let ports = kind.ports().iter().copied().zip(ports).collect();
        let (cluster, host) = (cluster.id.clone(), home.clone());
        actions.push(Action::PlaceMember { cluster, kind, ordinal, host, ports });
    }
    Ok(())
}

/// First certificates at once; renewals one member at a time and only while all others are
/// ready with what they were last given, because a member restarts with its new certificates.
fn certify(
    cluster: &ClusterIntent,
    seen: &ClusterSeen,
    observed: &Observed,
    actions: &mut Vec<Action>,
) {
    let issue = |member: &MemberSeen| Action::IssueCertificates {
        cluster: cluster.id.clone(),
        member: member.id.clone(),
    };
    actions.extend(seen.members.iter().filter(|m| m.certificates_until_ms.is_none()).map(issue));
    let limit = observed.now_ms + RENEW_CERTIFICATES_MS;
    let all_ready = seen.members.iter().all(|m| m.state == MemberState::Ready && m.current);
    let old = seen.members.iter().find(|m| m.certificates_until_ms.is_some_and(|at| at < limit));
    if let (true, Some(member)) = (all_ready, old) {
        actions.push(issue(member));
    }
}

fn start(cluster: &ClusterIntent, seen: &ClusterSeen, actions: &mut Vec<Action>) {
    let ready = |kind| {
        let of_kind = seen.members.iter().filter(|m| m.kind == kind);
        of_kind.filter(|m| m.state == MemberState::Ready).count()
    };
    let quorum = MemberKind::Etcd.count(cluster.ha) / 2 + 1;
    let store = ready(MemberKind::Etcd) >= quorum;
    let api = ready(MemberKind::ApiServer) > 0;
    // All etcd members together: none is ready before there is a quorum.
    let certified = |kind| {
        let mut of_kind = seen.members.iter().filter(|m| m.kind == kind);
        of_kind.all(|m| m.certificates_until_ms.is_some())
    };
    for member in seen.members.iter().filter(|m| !m.started) {
        let turn = match member.kind {
            MemberKind::Etcd => true,
            MemberKind::ApiServer => store,
            MemberKind::ControllerManager | MemberKind::Scheduler => api,
        };
        if turn && certified(member.kind) {
            let (cluster, member) = (cluster.id.clone(), member.id.clone());
            actions.push(Action::StartMember { cluster, member });
        }
    }
}
