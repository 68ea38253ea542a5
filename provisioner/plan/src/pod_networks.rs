//! Pod networks: each worker has one, cut out of the cluster's pod CIDR.

use ipnet::Ipv4Net;

use crate::{
    action::Action,
    model::{ClusterIntent, ClusterSeen},
};

/// Prefix length of each worker's pod network: /24, or /25 out of a small pod CIDR. A worker runs
/// at most 110 pods, so both are large enough.
pub fn node_mask(pods: Ipv4Net) -> u8 {
    if pods.prefix_len() >= 20 { 25 } else { 24 }
}

/// How many workers the pod CIDR has room for.
fn most_workers(pods: Ipv4Net) -> usize {
    1 << node_mask(pods).saturating_sub(pods.prefix_len())
}

/// How many more workers, over all groups, could get a pod network. A worker that goes gives its
/// network back: who needs it waits for it.
pub(crate) fn free(cluster: &ClusterIntent, seen: &ClusterSeen, actions: &[Action]) -> usize {
    let goes = |id: &str| {
        actions.iter().any(|action| matches!(action, Action::RemoveNode { node, .. } if node == id))
    };
    let stay = seen.nodes.iter().filter(|node| !node.deleting && !goes(&node.id)).count();
    let come = actions
        .iter()
        .filter(
            |action| matches!(action, Action::CreateNode { cluster: of, .. } if *of == cluster.id),
        )
        .count();
    most_workers(cluster.pod_cidr).saturating_sub(stay + come)
}

/// Why there is none left, in words.
pub(crate) fn exhausted(cluster: &ClusterIntent) -> String {
    let pods = cluster.pod_cidr;
    format!("the pod CIDR {pods} has room for {} workers", most_workers(pods))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pod_cidr_is_cut_into_smaller_networks() {
        for (cidr, mask, most) in [
            ("10.0.0.0/12", 24, 4096),
            ("10.0.0.0/19", 24, 32),
            ("10.0.0.0/20", 25, 32),
            ("10.0.0.0/22", 25, 8),
            ("10.0.0.0/26", 25, 1),
        ] {
            let pods = cidr.parse().unwrap();
            assert_eq!((node_mask(pods), most_workers(pods)), (mask, most), "{cidr}");
        }
    }
}
