//! NodeName: a pod that names its node runs there only.

use super::{Events, Filter, Plugin, Rejection};
use crate::cluster::Cluster;
use crate::pod::PodInfo;

/// See the module documentation.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn helped_by(&self) -> Events {
        Events::NODE_ADDED
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        let wanted = pod.node()?;
        Some(Box::new(move |node| match node.name == wanted {
            true => Ok(()),
            false => Err(Rejection::incurable("node(s) didn't match the requested node name")),
        }))
    }
}
