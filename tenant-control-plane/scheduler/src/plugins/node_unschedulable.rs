//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use component::placement::tolerates;
use k8s_openapi::api::core::v1::Taint;

use super::{Events, Filter, Plugin, Rejection};
use crate::cluster::Cluster;
use crate::pod::PodInfo;

/// See the module documentation.
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn helped_by(&self) -> Events {
        Events::NODE_ADDED.or(Events::NODE_TAINTS)
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Default::default()
        };
        if pod.spec().tolerations.iter().flatten().any(|t| tolerates(t, &taint)) {
            return None;
        }
        Some(Box::new(|node| match node.unschedulable {
            true => Err(Rejection::incurable("node(s) were unschedulable")),
            false => Ok(()),
        }))
    }
}
