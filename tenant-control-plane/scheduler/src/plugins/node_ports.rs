//! NodePorts: two pods cannot hold the same port of a node.

use super::{Events, Filter, Plugin, Rejection};
use crate::cluster::Cluster;
use crate::pod::PodInfo;

/// See the module documentation.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn helped_by(&self) -> Events {
        Events::NODE_ADDED.or(Events::ROOM)
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        if pod.host_ports.is_empty() {
            return None;
        }
        Some(Box::new(|node| match pod.host_ports.iter().any(|port| node.port_taken(port)) {
            true => Err(Rejection::curable(
                "node(s) didn't have free ports for the requested pod ports",
            )),
            false => Ok(()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    #[test]
    fn ports_conflict_by_protocol_number_and_address() {
        let with = |name: &str, port: serde_json::Value| {
            pod(name, json!({"containers": [{"name": "c", "ports": [port]}]}))
        };
        let mut cluster = cluster(&[node("a", json!({}))]);
        cluster.put_pod(
            with("held", json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"})),
            "a",
        );
        let fits = |port: serde_json::Value| {
            let pod = with("new", port);
            NodePorts
                .filter(&pod, &cluster)
                .is_none_or(|check| check(cluster.node("a").unwrap()).is_ok())
        };
        assert!(!fits(json!({"containerPort": 8080, "hostPort": 80})));
        assert!(!fits(json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"})));
        assert!(fits(json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.2"})));
        assert!(fits(json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"})));
        assert!(fits(json!({"containerPort": 80})));
    }
}
