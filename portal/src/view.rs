//! What callers get to see: one JSON shape per noun.

use marina_db::clusters::Cluster;
use marina_db::events::Event;
use marina_db::hosts::Host;
use marina_db::members::Member;
use marina_db::node_groups::{NodeGroup, NodeGroupObserved};
use marina_db::nodes::Node;
use marina_db::observed::{ClusterObserved, Step};
use marina_db::tokens::ApiToken;
use marina_db::versions::Version;
use serde::Serialize;
use utoipa::ToSchema;

/// A page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Pass it as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A cluster: what was asked for, and what became of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ClusterView {
    /// Id; also the first label of its server name.
    pub id: String,
    /// Name, unique in the organization.
    pub name: String,
    /// Kubernetes minor.
    pub version: String,
    /// `single` or `ha`.
    pub control_plane: String,
    /// Driver of node groups that do not choose one.
    pub driver: String,
    /// Addresses of pods.
    pub pod_cidr: String,
    /// Addresses of Services.
    pub service_cidr: String,
    /// Addresses of workers.
    pub vpc_cidr: String,
    /// Grows with each change of what is asked for.
    pub generation: i64,
    /// The generation that has been acted on completely.
    pub observed_generation: i64,
    /// `pending`, `provisioning`, `ready`, `degraded` or `deleting`.
    pub phase: String,
    /// One sentence about the phase.
    pub message: String,
    /// Address of the API server, empty until it is known.
    pub endpoint: String,
    /// TLS server name of the API server, empty until it is known.
    pub server_name: String,
    /// Steps of provisioning, in order.
    pub steps: Vec<StepView>,
    /// Processes of the control plane; only when one cluster is read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberView>,
    /// Who asked for it.
    pub created_by: String,
    /// Unix time in milliseconds.
    pub created_ms: i64,
    /// When the control plane first served, Unix time in milliseconds.
    pub ready_ms: Option<i64>,
    /// When deletion was asked for, Unix time in milliseconds.
    pub deletion_requested_ms: Option<i64>,
}

impl ClusterView {
    /// From the two halves.
    pub fn new(cluster: &Cluster, observed: &ClusterObserved, members: &[Member]) -> Self {
        let deleting = cluster.deletion_requested_ms.is_some();
        Self {
            id: cluster.id.to_string(),
            name: cluster.spec.name.clone(),
            version: cluster.spec.version.clone(),
            control_plane: cluster.spec.control_plane.to_string(),
            driver: cluster.spec.driver.to_string(),
            pod_cidr: cluster.spec.pod_cidr.clone(),
            service_cidr: cluster.spec.service_cidr.clone(),
            vpc_cidr: cluster.spec.vpc_cidr.clone(),
            generation: cluster.generation,
            observed_generation: observed.observed_generation,
            phase: if deleting { "deleting".into() } else { observed.phase.to_string() },
            message: observed.message.clone(),
            endpoint: observed.endpoint.clone(),
            server_name: observed.server_name.clone(),
            steps: observed.steps.iter().map(StepView::from).collect(),
            members: members.iter().map(MemberView::from).collect(),
            created_by: cluster.created_by.clone(),
            created_ms: cluster.created_ms,
            ready_ms: observed.ready_ms,
            deletion_requested_ms: cluster.deletion_requested_ms,
        }
    }
}

/// A step of provisioning.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StepView {
    /// Stable name.
    pub name: String,
    /// Title for people.
    pub title: String,
    /// `waiting`, `running`, `done` or `failed`.
    pub state: String,
    /// Why it waits or failed.
    pub message: String,
    /// When it began, Unix time in milliseconds.
    pub started_ms: Option<i64>,
    /// When it was done, Unix time in milliseconds.
    pub finished_ms: Option<i64>,
}

impl From<&Step> for StepView {
    fn from(step: &Step) -> Self {
        Self {
            name: step.name.clone(),
            title: step.title.clone(),
            state: step.state.to_string(),
            message: step.message.clone(),
            started_ms: step.started_ms,
            finished_ms: step.finished_ms,
        }
    }
}

/// A process of a control plane.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MemberView {
    /// `etcd`, `kube-apiserver`, `kube-controller-manager` or `kube-scheduler`.
    pub kind: String,
    /// 0, 1, 2 … within the kind.
    pub ordinal: i64,
    /// `waiting`, `starting`, `ready` or `failed`.
    pub state: String,
    /// Why, in words.
    pub message: String,
    /// How often it was started again.
    pub restarts: i64,
}

impl From<&Member> for MemberView {
    fn from(member: &Member) -> Self {
        Self {
            kind: member.kind.to_string(),
            ordinal: member.ordinal,
            state: member.state.to_string(),
            message: member.message.clone(),
            restarts: member.restarts,
        }
    }
}

/// A node group.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeGroupView {
    /// Id.
    pub id: String,
    /// Name, unique in the cluster.
    pub name: String,
    /// How many workers are wanted.
    pub count: i64,
    /// How many exist.
    pub total: i64,
    /// How many are Ready.
    pub ready: i64,
    /// `qemu` or `sandbox`.
    pub driver: String,
    /// Virtual CPUs of each.
    pub vcpus: i64,
    /// Memory of each, MiB.
    pub memory_mib: i64,
    /// Disk of each, GiB.
    pub disk_gib: i64,
    /// Labels of the Nodes.
    pub labels: std::collections::BTreeMap<String, String>,
    /// What it waits for, or why it cannot go on.
    pub message: String,
    /// Grows with each change of what is asked for.
    pub generation: i64,
    /// The generation that has been acted on completely.
    pub observed_generation: i64,
    /// True while it is being deleted.
    pub deleting: bool,
}

impl NodeGroupView {
    /// From the two halves.
    pub fn new(group: &NodeGroup, observed: Option<&NodeGroupObserved>) -> Self {
        let spec = &group.spec;
        Self {
            id: group.id.to_string(),
            name: spec.name.clone(),
            count: spec.desired,
            total: observed.map_or(0, |observed| observed.total),
            ready: observed.map_or(0, |observed| observed.ready),
            driver: spec.driver.to_string(),
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            disk_gib: spec.disk_gib,
            labels: spec.labels.clone(),
            message: observed.map(|observed| observed.message.clone()).unwrap_or_default(),
            generation: group.generation,
            observed_generation: observed.map_or(0, |observed| observed.observed_generation),
            deleting: group.deletion_requested_ms.is_some(),
        }
    }
}

/// A worker.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeView {
    /// Id.
    pub id: String,
    /// Name of its Node object.
    pub name: String,
    /// Id of its node group.
    pub group_id: String,
    /// `pending`, `booting`, `joining`, `ready`, `not-ready`, `exited`, `failed` or `deleting`.
    pub phase: String,
    /// Its Node is Ready.
    pub ready: bool,
    /// Why, in words.
    pub message: String,
    /// Address inside the cluster's network.
    pub address: String,
    /// `qemu` or `sandbox`.
    pub driver: String,
    /// Unix time in milliseconds.
    pub created_ms: i64,
}

impl From<&Node> for NodeView {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            name: node.name.clone(),
            group_id: node.group_id.to_string(),
            phase: node.phase.to_string(),
            ready: node.ready,
            message: node.message.clone(),
            address: node.address.clone(),
            driver: node.driver.to_string(),
            created_ms: node.created_ms,
        }
    }
}

/// Something that happened to a cluster.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventView {
    /// Position in the order of all events.
    pub seq: i64,
    /// Unix time in milliseconds.
    pub time_ms: i64,
    /// Stable machine-readable kind.
    pub kind: String,
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// What it is about, such as `node/workers-x7k2p`.
    pub subject: String,
    /// A sentence.
    pub message: String,
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> Self {
        Self {
            seq: event.seq,
            time_ms: event.time_ms,
            kind: event.kind.clone(),
            severity: event.severity.to_string(),
            subject: event.subject.clone(),
            message: event.message.clone(),
        }
    }
}

/// An API token, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TokenView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `read` or `write`.
    pub scope: String,
    /// Unix time in milliseconds.
    pub created_ms: i64,
    /// Not valid from then on, Unix time in milliseconds.
    pub expires_ms: Option<i64>,
    /// Last use, Unix time in milliseconds.
    pub last_used_ms: Option<i64>,
}

impl From<&ApiToken> for TokenView {
    fn from(token: &ApiToken) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.clone(),
            scope: token.scope.to_string(),
            created_ms: token.created_ms,
            expires_ms: token.expires_ms,
            last_used_ms: token.last_used_ms,
        }
    }
}

/// A management host.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostView {
    /// Name.
    pub name: String,
    /// Failure zone.
    pub zone: String,
    /// New tenants may be placed on it.
    pub schedulable: bool,
    /// Processors.
    pub vcpus: i64,
    /// Memory, MiB.
    pub memory_mib: i64,
    /// Free disk, GiB.
    pub disk_gib: i64,
    /// What workers it can run, or why not.
    pub drivers: Vec<DriverView>,
    /// What is wrong with it, empty when nothing is.
    pub message: String,
    /// When its agent was last heard, Unix time in milliseconds; 0 for never.
    pub last_seen_ms: i64,
}

/// Whether a host can run workers of one kind.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DriverView {
    /// `qemu` or `sandbox`.
    pub name: String,
    /// It can.
    pub usable: bool,
    /// How, or why not.
    pub message: String,
}

impl From<&Host> for HostView {
    fn from(host: &Host) -> Self {
        let drivers = host.report.drivers.iter().map(|driver| DriverView {
            name: driver.name.clone(),
            usable: driver.usable,
            message: driver.message.clone(),
        });
        Self {
            name: host.name.clone(),
            zone: host.zone.clone(),
            schedulable: host.schedulable,
            vcpus: host.report.vcpus,
            memory_mib: host.report.memory_mib,
            disk_gib: host.report.disk_gib,
            drivers: drivers.collect(),
            message: host.report.message.clone(),
            last_seen_ms: host.last_seen_ms,
        }
    }
}

/// A Kubernetes minor.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VersionView {
    /// Name, such as `1.35`.
    pub name: String,
    /// Whether new clusters can have it.
    pub state: String,
    /// Taken when none is asked for.
    pub is_default: bool,
    /// Unix time in milliseconds.
    pub end_of_support_ms: Option<i64>,
}

impl From<&Version> for VersionView {
    fn from(version: &Version) -> Self {
        Self {
            name: version.name.clone(),
            state: version.state.to_string(),
            is_default: version.is_default,
            end_of_support_ms: version.end_of_support_ms,
        }
    }
}
