//! The picture of the region in the planner's words.

use std::collections::BTreeMap;

use marina_db::{
    clusters::{Cluster, ControlPlane},
    hosts::Host,
    members::{Member, MemberKind, MemberState},
    node_groups::NodeGroup,
    nodes::Node,
    observed::{ClusterObserved, ClusterPhase, StepState},
};
use provisioner_api::launch_hash;
use provisioner_plan as plan;

use crate::{agents::HostView, config::Settings, execute, member_spec, region::Region, sight};

type Views = BTreeMap<String, HostView>;

/// What customers want. A cluster whose addresses make no sense is left out; the second value
/// names it and says why.
pub(crate) fn intent(region: &Region) -> (plan::Intent, Vec<(String, String)>) {
    let mut wrong = Vec::new();
    let mut clusters = Vec::new();
    for cluster in &region.clusters {
        match execute::ranges_of(cluster) {
            Ok((vpc, pods)) => clusters.push(cluster_intent(region, cluster, vpc, pods)),
            // It still can be deleted: nothing of it was ever made.
            Err(_) if cluster.deletion_requested_ms.is_some() => {
                let none = ipnet::Ipv4Net::default();
                clusters.push(cluster_intent(region, cluster, none, none));
            }
            Err(error) => wrong.push((cluster.id.to_string(), format!("{error:#}."))),
        }
    }
    (plan::Intent { clusters }, wrong)
}

fn cluster_intent(
    region: &Region,
    cluster: &Cluster,
    vpc_cidr: ipnet::Ipv4Net,
    pod_cidr: ipnet::Ipv4Net,
) -> plan::ClusterIntent {
    let groups = region.groups.iter().filter(|group| group.cluster_id == cluster.id);
    plan::ClusterIntent {
        id: cluster.id.to_string(),
        ha: cluster.spec.control_plane == ControlPlane::Ha,
        generation: cluster.generation,
        created_ms: cluster.created_ms,
        deleting: cluster.deletion_requested_ms.is_some(),
        vpc_cidr,
        pod_cidr,
        groups: groups.map(group_intent).collect(),
    }
}

fn group_intent(group: &NodeGroup) -> plan::GroupIntent {
    plan::GroupIntent {
        id: group.id.to_string(),
        name: group.spec.name.clone(),
        desired: usize::try_from(group.spec.desired).unwrap_or(0),
        driver: group.spec.driver.as_str().to_owned(),
        size: size(group.spec.vcpus, group.spec.memory_mib, group.spec.disk_gib),
        generation: group.generation,
        deleting: group.deletion_requested_ms.is_some(),
    }
}

fn size(vcpus: i64, memory_mib: i64, disk_gib: i64) -> plan::Size {
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    plan::Size { vcpus: number(vcpus), memory_mib: number(memory_mib), disk_gib: number(disk_gib) }
}

/// What is seen.
pub(crate) fn observed(region: &Region, settings: &Settings, views: &Views) -> plan::Observed {
    let clusters = region.clusters.iter();
    plan::Observed {
        now_ms: region.now_ms,
        hosts: region.hosts.iter().map(|host| host_seen(host, views)).collect(),
        clusters: clusters
            .map(|cluster| (cluster.id.to_string(), cluster_seen(region, settings, cluster, views)))
            .collect(),
    }
}

fn host_seen(host: &Host, views: &Views) -> plan::HostSeen {
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let report = &host.report;
    plan::HostSeen {
        id: host.id.to_string(),
        name: host.name.clone(),
        alive: views.get(host.id.as_str()).is_some_and(|view| view.connected),
        schedulable: host.schedulable,
        vcpus: number(report.vcpus),
        memory_mib: number(report.memory_mib),
        disk_free_gib: number(report.disk_gib),
        ports: (report.port_min, report.port_max),
        drivers: report
            .drivers
            .iter()
            .map(|driver| {
                let message = driver.message.clone();
                (driver.name.clone(), plan::DriverSeen { usable: driver.usable, message })
            })
            .collect(),
    }
}

fn cluster_seen(
    region: &Region,
    settings: &Settings,
    cluster: &Cluster,
    views: &Views,
) -> plan::ClusterSeen {
    let id = cluster.id.as_str();
    let members: Vec<&Member> = region.members_of(id).collect();
    let home = members.first().and_then(|member| views.get(member.host_id.as_str()));
    let report = home.and_then(|view| view.report.as_deref());
    let state = report.and_then(|report| report.clusters.iter().find(|c| c.id == id));
    let bootstrap = state.and_then(|state| state.bootstrap.clone()).unwrap_or_default();
    let mut hosts: Vec<&str> = members.iter().map(|member| member.host_id.as_str()).collect();
    hosts.extend(region.nodes_of(id).map(|node| node.host_id.as_str()));
    hosts.sort_unstable();
    hosts.dedup();
    let may_have = |host: &&str| views.get(*host).is_none_or(|view| view.may_have_cluster(id));
    plan::ClusterSeen {
        has_pki: region.pki.contains_key(id),
        members: members
            .iter()
            .map(|member| {
                let current = is_current(region, settings, cluster, member, views);
                member_seen(region, member, current)
            })
            .collect(),
        nodes: region.nodes_of(id).map(|node| node_seen(node, views)).collect(),
        vpc_ready: state.is_some_and(|state| state.vpc_ready),
        vpc_message: state.map(|state| state.vpc_message.clone()).unwrap_or_default(),
        addons_done: bootstrap.done,
        addons_message: bootstrap.message,
        present_on: hosts.into_iter().filter(may_have).map(str::to_owned).collect(),
        status: region.observed.get(id).map(status_seen),
        groups: region
            .groups
            .iter()
            .filter(|group| group.cluster_id == cluster.id)
            .filter_map(|group| region.groups_observed.get(group.id.as_str()))
            .map(|seen| {
                let status = plan::GroupStatus {
                    observed_generation: seen.observed_generation,
                    total: usize::try_from(seen.total).unwrap_or(0),
                    ready: usize::try_from(seen.ready).unwrap_or(0),
                    message: seen.message.clone(),
                };
                (seen.group_id.to_string(), status)
            })
            .collect(),
    }
}

/// Whether a member's host reports a process that was started with what is wanted now. An agent
/// that does not say what it started is believed.
fn is_current(
    region: &Region,
    settings: &Settings,
    cluster: &Cluster,
    member: &Member,
    views: &Views,
) -> bool {
    let report = views.get(member.host_id.as_str()).and_then(|view| view.report.as_deref());
    let Some(report) = report else { return false };
    let clusters = report.clusters.iter().filter(|state| state.id == cluster.id.as_str());
    let mut members = clusters.flat_map(|state| &state.members);
    let Some(state) = members.find(|state| state.id == member.id.as_str()) else { return false };
    let wanted = member_spec::spec(region, settings, cluster, member);
    state.launch_hash.is_empty()
        || wanted.is_ok_and(|wanted| launch_hash(&wanted) == state.launch_hash)
}

fn member_seen(region: &Region, member: &Member, current: bool) -> plan::MemberSeen {
    plan::MemberSeen {
        id: member.id.to_string(),
        kind: match member.kind {
            MemberKind::Etcd => plan::MemberKind::Etcd,
            MemberKind::ApiServer => plan::MemberKind::ApiServer,
            MemberKind::ControllerManager => plan::MemberKind::ControllerManager,
            MemberKind::Scheduler => plan::MemberKind::Scheduler,
        },
        ordinal: usize::try_from(member.ordinal).unwrap_or(0),
        host: member.host_id.to_string(),
        ports: member.ports.iter().map(|(_, port)| *port).collect(),
        certificates_until_ms: execute::certificates_until_ms(
            &region.member_files,
            member.id.as_str(),
        ),
        started: member.started,
        current,
        state: match member.state {
            MemberState::Waiting => plan::MemberState::Waiting,
            MemberState::Starting => plan::MemberState::Starting,
            MemberState::Ready => plan::MemberState::Ready,
            MemberState::Failed => plan::MemberState::Failed,
        },
        message: member.message.clone(),
    }
}

fn node_seen(node: &Node, views: &Views) -> plan::NodeSeen {
    let host = views.get(node.host_id.as_str());
    plan::NodeSeen {
        id: node.id.to_string(),
        name: node.name.clone(),
        group: node.group_id.to_string(),
        host: node.host_id.to_string(),
        // An address that cannot be read blocks none: the planner only avoids it.
        address: node.address.parse().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED),
        driver: node.driver.as_str().to_owned(),
        size: size(node.vcpus, node.memory_mib, node.disk_gib),
        phase: sight::from_db(node.phase),
        joined: node.joined,
        message: node.message.clone(),
        phase_since_ms: node.phase_since_ms,
        created_ms: node.created_ms,
        deleting: node.deletion_requested_ms.is_some(),
        present: host.is_none_or(|view| view.may_have_worker(node.id.as_str())),
    }
}

fn status_seen(observed: &ClusterObserved) -> plan::ClusterStatus {
    plan::ClusterStatus {
        phase: match observed.phase {
            ClusterPhase::Pending => plan::Phase::Pending,
            ClusterPhase::Provisioning => plan::Phase::Provisioning,
            ClusterPhase::Ready => plan::Phase::Ready,
            ClusterPhase::Degraded => plan::Phase::Degraded,
            ClusterPhase::Deleting => plan::Phase::Deleting,
        },
        message: observed.message.clone(),
        observed_generation: observed.observed_generation,
        steps: observed
            .steps
            .iter()
            .map(|step| plan::Step {
                name: step.name.clone(),
                title: step.title.clone(),
                state: match step.state {
                    StepState::Waiting => plan::StepState::Waiting,
                    StepState::Running => plan::StepState::Running,
                    StepState::Done => plan::StepState::Done,
                    StepState::Failed => plan::StepState::Failed,
                },
                message: step.message.clone(),
                started_ms: step.started_ms,
                finished_ms: step.finished_ms,
            })
            .collect(),
        ready_ms: observed.ready_ms,
    }
}
