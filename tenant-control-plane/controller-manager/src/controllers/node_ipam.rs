//! Node IPAM: gives each node a pod range of its own out of the cluster's.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use anyhow::bail;
use component::workqueue::Requeue;
use component::{EventType, Recorder, WorkQueue};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::config::NodeRanges;
use crate::context::{Context, Running, enqueue_changes};
use crate::writes::{Writer, ignore_missing};

/// Registers the controller, if ranges are to be allocated.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let Some(ranges) = context.config.node_ranges.clone() else { return Ok(None) };
    let nodes = context.informer::<Node>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&nodes, &queue);
    let controller = Arc::new(Controller {
        writer: Writer::new(context.client.clone(), nodes),
        recorder: context.recorder("node-ipam-controller"),
        cursor: Mutex::new(0),
        ranges,
    });
    // One worker: two must not pick the same range.
    Ok(Some(context.work("node-ipam", queue, 1, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key.name).await }
    })))
}

struct Controller {
    writer: Writer<Node>,
    recorder: Recorder,
    ranges: NodeRanges,
    /// Where the search for a free range goes on, so that a range freed just now is the last to be
    /// given away again.
    cursor: Mutex<u64>,
}

fn ranges_of(node: &Node) -> impl Iterator<Item = IpNet> {
    let spec = node.spec.as_ref();
    let many = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
    let one = spec.and_then(|spec| spec.pod_cidr.as_ref());
    many.chain(one).filter_map(|text| text.parse().ok())
}

impl Controller {
    async fn sync(&self, name: &str) -> anyhow::Result<Requeue> {
        let nodes = self.writer.cache();
        let Some(node) = nodes.get_cluster(name) else { return Ok(None) };
        if ranges_of(&node).next().is_some() || node.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let used: HashSet<_> = nodes.list().iter().flat_map(|node| ranges_of(node)).collect();
        let cursor = *self.cursor.lock().expect("no code panics while it holds this lock");
        let Some((index, range)) = next_free(&self.ranges, &used, cursor) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.recorder.event(node.as_ref(), EventType::Normal, "CIDRNotAvailable", message);
            bail!("no pod range is left in {} for node {name}", self.ranges.cluster);
        };
        let text = range.to_string();
        let patch = json!({"spec": {"podCIDR": text, "podCIDRs": [text]}});
        ignore_missing(self.writer.patch(&node, patch).await)?;
        *self.cursor.lock().expect("no code panics while it holds this lock") = index + 1;
        tracing::info!(node.name = name, %range, "the node has its pod range");
        Ok(None)
    }
}

fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The first range from `cursor` on (wrapping around) that touches neither a used one nor the
/// Services'. Returns its index too.
fn next_free(ranges: &NodeRanges, used: &HashSet<IpNet>, cursor: u64) -> Option<(u64, IpNet)> {
    let count = 1_u64 << (ranges.mask - ranges.cluster.prefix_len());
    (0..count).map(|step| (cursor + step) % count).find_map(|index| {
        let range = nth(ranges, index)?;
        let taken = used.contains(&range)
            || ranges.services.is_some_and(|services| overlaps(&services, &range))
            || used.iter().any(|other| overlaps(other, &range));
        (!taken).then_some((index, range))
    })
}

fn nth(ranges: &NodeRanges, index: u64) -> Option<IpNet> {
    let shift = ranges.cluster.max_prefix_len() - ranges.mask;
    let address = match ranges.cluster.network() {
        IpAddr::V4(base) => {
            let offset = u32::try_from(index).ok()?.checked_shl(u32::from(shift))?;
            IpAddr::from((u32::from(base) | offset).to_be_bytes())
        }
        IpAddr::V6(base) => {
            let offset = u128::from(index).checked_shl(u32::from(shift))?;
            IpAddr::from((u128::from(base) | offset).to_be_bytes())
        }
    };
    IpNet::new(address, ranges.mask).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(cluster: &str, services: Option<&str>, mask: u8) -> NodeRanges {
        NodeRanges {
            cluster: cluster.parse().unwrap(),
            services: services.map(|s| s.parse().unwrap()),
            mask,
        }
    }

    #[test]
    fn ranges_are_given_in_turn_and_never_twice() {
        let ranges = ranges("10.244.0.0/22", None, 24);
        let mut used = HashSet::new();
        let mut cursor = 0;
        let mut given = Vec::new();
        while let Some((index, range)) = next_free(&ranges, &used, cursor) {
            used.insert(range);
            cursor = index + 1;
            given.push(range.to_string());
        }
        assert_eq!(given, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
        used.remove(&"10.244.1.0/24".parse().unwrap());
        assert_eq!(next_free(&ranges, &used, cursor).unwrap().1.to_string(), "10.244.1.0/24");
    }

    #[test]
    fn the_services_range_is_left_out() {
        let ranges = ranges("10.0.0.0/22", Some("10.0.0.0/23"), 24);
        assert_eq!(next_free(&ranges, &HashSet::new(), 0).unwrap().1.to_string(), "10.0.2.0/24");
        let six = self::ranges("fd00::/56", None, 64);
        assert_eq!(nth(&six, 3).unwrap().to_string(), "fd00:0:0:3::/64");
    }
}
