//! Routes to the other nodes' pods.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;

/// Number in the routes' `proto` field that marks them as ours.
pub const PROTOCOL: &str = "77";

/// Destination and next hop.
pub type Routes = BTreeMap<Ipv4Net, Ipv4Addr>;

/// The first IPv4 pod CIDR of a node.
pub fn pod_cidr(node: &Node) -> Option<Ipv4Net> {
    let spec = node.spec.as_ref()?;
    spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.iter()).find_map(|cidr| cidr.parse().ok())
}

/// The first IPv4 internal address of a node.
pub fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses
        .iter()
        .filter(|address| address.type_ == "InternalIP")
        .find_map(|address| address.address.parse().ok())
}

/// The routes that node `own` needs to reach the pods of all others. A pod CIDR outside
/// `cluster_cidr` is ignored: a Node object must not be able to take over other addresses.
pub fn wanted<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    own: &str,
    cluster_cidr: Ipv4Net,
) -> Routes {
    nodes
        .into_iter()
        .filter(|node| node.metadata.name.as_deref() != Some(own))
        .filter_map(|node| Some((pod_cidr(node)?, internal_ip(node)?)))
        .filter(|(cidr, _)| cluster_cidr.contains(cidr))
        .collect()
}

/// Reads `ip -4 route show proto 77`.
pub fn parse(text: &str) -> Routes {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let to = words.next()?;
            let to =
                to.parse().ok().or_else(|| Some(Ipv4Net::from(to.parse::<Ipv4Addr>().ok()?)))?;
            words.find(|word| *word == "via")?;
            Some((to, words.next()?.parse().ok()?))
        })
        .collect()
}

/// Input for `ip -batch -` that leads from `present` to `wanted`.
pub fn batch(present: &Routes, wanted: &Routes) -> String {
    let gone = present
        .keys()
        .filter(|cidr| !wanted.contains_key(*cidr))
        .map(|cidr| format!("route del {cidr} proto {PROTOCOL}\n"));
    let new = wanted
        .iter()
        .filter(|(cidr, via)| present.get(*cidr) != Some(via))
        .map(|(cidr, via)| format!("route replace {cidr} via {via} proto {PROTOCOL}\n"));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, cidr: &str, ip: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr},
            "status": {"addresses": [{"type": "Hostname", "address": name},
                                     {"type": "InternalIP", "address": ip}]}}))
        .expect("a Node")
    }

    #[test]
    fn each_other_node_gets_one_route_and_foreign_ranges_get_none() {
        let nodes = [
            node("a", "10.244.0.0/24", "10.0.1.1"),
            node("b", "10.244.1.0/24", "10.0.1.2"),
            node("evil", "10.96.0.0/24", "10.0.1.3"),
        ];
        let cluster = "10.244.0.0/16".parse().expect("a CIDR");
        let wanted = wanted(&nodes, "a", cluster);
        assert_eq!(wanted.len(), 1);
        let present =
            parse("10.244.9.0/24 via 10.0.1.9 dev eth0\n10.244.8.1 via 10.0.1.8 dev eth0\n");
        assert_eq!(present.len(), 2);
        let text = batch(&present, &wanted);
        assert!(text.contains("route del 10.244.9.0/24"), "{text}");
        assert!(text.contains("route replace 10.244.1.0/24 via 10.0.1.2"), "{text}");
        assert_eq!(batch(&wanted, &wanted), "");
    }
}
