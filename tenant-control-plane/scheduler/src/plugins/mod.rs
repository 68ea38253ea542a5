//! Scheduling plugins: what rules nodes out, and what makes one better than another.

use std::borrow::Cow;

use crate::cluster::{Cluster, NodeInfo};
use crate::pod::PodInfo;

mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_balanced;
pub mod resources_fit;
mod taint_toleration;
mod topology_spread;

/// Best score that a plugin gives.
pub const MAX_SCORE: i64 = 100;

/// Why a node will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// As users read it, after a count of nodes.
    pub reasons: Vec<Cow<'static, str>>,
    /// True when evicting pods from the node could help.
    pub curable: bool,
}

impl Rejection {
    /// Evicting pods could help.
    pub fn curable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], curable: true }
    }

    /// Evicting pods cannot help.
    pub fn incurable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], curable: false }
    }
}

/// Decides about one node, for one pod.
pub type Filter<'a> = Box<dyn Fn(&NodeInfo) -> Result<(), Rejection> + 'a>;

/// Kinds of change in the cluster, as a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events(pub u16);

impl Events {
    /// A node came.
    pub const NODE_ADDED: Self = Self(1);
    /// A node's labels changed.
    pub const NODE_LABELS: Self = Self(2);
    /// A node's taints changed, or it was uncordoned.
    pub const NODE_TAINTS: Self = Self(4);
    /// A node offers other amounts.
    pub const NODE_ALLOCATABLE: Self = Self(8);
    /// A pod on a node is gone or finished.
    pub const POD_REMOVED: Self = Self(16);
    /// A pod came to a node, or one there changed its labels.
    pub const POD_ADDED: Self = Self(32);
    /// A pod has left a node: for plugins whose checks look at that node alone.
    pub const ROOM: Self = Self(64);
    /// Any of the above.
    pub const ANY: Self = Self(u16::MAX);

    /// Both.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when they have one in common.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// One rule. Both functions are pure; what they need to know about the pod and the cluster they
/// compute once and keep in what they return.
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// Changes after which a pod that this plugin rejected may fit.
    fn helped_by(&self) -> Events {
        Events::ANY
    }

    /// The check of nodes for this pod, or `None` when it would pass everywhere.
    fn filter<'a>(&'a self, _pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        None
    }

    /// Scores (0 to [`MAX_SCORE`]) of the feasible nodes, in their order, or `None` when the plugin
    /// has no preference.
    fn score(&self, _pod: &PodInfo, _cluster: &Cluster, _nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        None
    }

    /// How much the score counts.
    fn weight(&self) -> i64 {
        1
    }
}

/// All plugins, cheapest checks first: the first rejection ends a node. To add one: write
/// `plugins/<name>.rs` with a unit struct that implements [`Plugin`], add its `mod` line above, and
/// duplicate a line here. Names and weights are upstream's.
pub const PLUGINS: &[&dyn Plugin] = &[
    &node_unschedulable::NodeUnschedulable,
    &node_name::NodeName,
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &resources_fit::NodeResourcesFit,
    &topology_spread::PodTopologySpread,
    &inter_pod_affinity::InterPodAffinity,
    &resources_balanced::NodeResourcesBalancedAllocation,
    &image_locality::ImageLocality,
];

/// Scales counts so that the largest becomes [`MAX_SCORE`]; `reverse` makes the smallest best.
fn normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or_default();
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
