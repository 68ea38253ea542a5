//! What the planner is told.

use std::collections::BTreeMap;

use crate::status::{ClusterStatus, GroupStatus};

/// What customers want.
#[derive(Clone, Debug, Default)]
pub struct Intent {
    /// All clusters, oldest first: when room is short, the oldest gets it.
    pub clusters: Vec<ClusterIntent>,
}

/// A wanted cluster.
#[derive(Clone, Debug)]
pub struct ClusterIntent {
    /// Id.
    pub id: String,
    /// Three etcd members and two of everything else, instead of one of each.
    pub ha: bool,
    /// Grows with each change.
    pub generation: i64,
    /// Unix ms.
    pub created_ms: i64,
    /// It is to go.
    pub deleting: bool,
    /// Addresses of workers.
    pub vpc_cidr: ipnet::Ipv4Net,
    /// Addresses of pods: each worker gets a network out of it.
    pub pod_cidr: ipnet::Ipv4Net,
    /// Its node groups.
    pub groups: Vec<GroupIntent>,
}

/// A wanted node group.
#[derive(Clone, Debug)]
pub struct GroupIntent {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// How many workers.
    pub desired: usize,
    /// How they run.
    pub driver: String,
    /// What each gets.
    pub size: Size,
    /// Grows with each change.
    pub generation: i64,
    /// It is to go.
    pub deleting: bool,
}

/// What a worker gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// MiB.
    pub memory_mib: u64,
    /// GiB.
    pub disk_gib: u64,
}

/// What is seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Unix ms.
    pub now_ms: i64,
    /// Hosts.
    pub hosts: Vec<HostSeen>,
    /// Clusters by id; one that is missing has nothing yet.
    pub clusters: BTreeMap<String, ClusterSeen>,
}

impl Observed {
    pub(crate) fn host(&self, id: &str) -> Option<&HostSeen> {
        self.hosts.iter().find(|host| host.id == id)
    }
}

/// A host.
#[derive(Clone, Debug, Default)]
pub struct HostSeen {
    /// Id.
    pub id: String,
    /// Name, for people.
    pub name: String,
    /// Its agent answers.
    pub alive: bool,
    /// New tenants may be placed on it.
    pub schedulable: bool,
    /// Processors.
    pub vcpus: u64,
    /// MiB.
    pub memory_mib: u64,
    /// GiB that are free now.
    pub disk_free_gib: u64,
    /// First and last port for members.
    pub ports: (u16, u16),
    /// Worker drivers by name.
    pub drivers: BTreeMap<String, DriverSeen>,
}

/// A worker driver on a host.
#[derive(Clone, Debug, Default)]
pub struct DriverSeen {
    /// It can make workers.
    pub usable: bool,
    /// Why not, or how.
    pub message: String,
}

/// What exists of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterSeen {
    /// Its CA set exists.
    pub has_pki: bool,
    /// Its members.
    pub members: Vec<MemberSeen>,
    /// Its nodes.
    pub nodes: Vec<NodeSeen>,
    /// Its VPC is in place on its host.
    pub vpc_ready: bool,
    /// Why not.
    pub vpc_message: String,
    /// Marina's objects are in place inside it.
    pub addons_done: bool,
    /// Why not.
    pub addons_message: String,
    /// Hosts that have, or may have, anything of it.
    pub present_on: Vec<String>,
    /// Its status as last written.
    pub status: Option<ClusterStatus>,
    /// Its groups' status as last written.
    pub groups: BTreeMap<String, GroupStatus>,
}

/// Which process of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberKind {
    /// The store.
    Etcd,
    /// The API.
    ApiServer,
    /// The controllers.
    ControllerManager,
    /// The scheduler.
    Scheduler,
}

impl MemberKind {
    /// In the order in which they start.
    pub const ALL: [Self; 4] =
        [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    /// Name of its binary.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    /// How many a control plane has.
    pub fn count(self, ha: bool) -> usize {
        match (self, ha) {
            (_, false) => 1,
            (Self::Etcd, true) => 3,
            (_, true) => 2,
        }
    }

    /// What it listens for.
    pub fn ports(self) -> &'static [&'static str] {
        match self {
            Self::Etcd => &["client", "peer", "metrics"],
            _ => &["secure"],
        }
    }
}

/// State of a member's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Not running yet.
    Waiting,
    /// Running, not ready.
    Starting,
    /// Ready.
    Ready,
    /// Ended, or cannot be started.
    Failed,
}

/// A placed member.
#[derive(Clone, Debug)]
pub struct MemberSeen {
    /// Id.
    pub id: String,
    /// Kind.
    pub kind: MemberKind,
    /// 0, 1, 2 … within the kind.
    pub ordinal: usize,
    /// Host id.
    pub host: String,
    /// Ports that it has.
    pub ports: Vec<u16>,
    /// Until when its certificates are valid (Unix ms); `None` when it has none.
    pub certificates_until_ms: Option<i64>,
    /// It was told to run.
    pub started: bool,
    /// Its process runs with what is wanted now: `state` is that of the present files and flags.
    pub current: bool,
    /// State.
    pub state: MemberState,
    /// Why.
    pub message: String,
}

/// Where a worker is in its life; see `marina_db::nodes::NodePhase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePhase {
    /// Decided; not reported yet.
    Pending,
    /// Its machine boots.
    Booting,
    /// Its machine runs; no Ready Node yet.
    Joining,
    /// Its Node is Ready.
    Ready,
    /// Its Node was Ready and is not.
    NotReady,
    /// Its machine ended.
    Exited,
    /// Its driver cannot make it.
    Failed,
    /// Being removed.
    Deleting,
}

/// A worker.
#[derive(Clone, Debug)]
pub struct NodeSeen {
    /// Id.
    pub id: String,
    /// Name of its Node.
    pub name: String,
    /// Group id.
    pub group: String,
    /// Host id.
    pub host: String,
    /// Address in the VPC.
    pub address: std::net::Ipv4Addr,
    /// How it runs.
    pub driver: String,
    /// What it has.
    pub size: Size,
    /// Phase.
    pub phase: NodePhase,
    /// Its Node was Ready at least once.
    pub joined: bool,
    /// Why.
    pub message: String,
    /// Since when it is in this phase (Unix ms).
    pub phase_since_ms: i64,
    /// Unix ms.
    pub created_ms: i64,
    /// It is being removed.
    pub deleting: bool,
    /// Its host has, or may have, something of it.
    pub present: bool,
}
