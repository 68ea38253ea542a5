//! Ports of this node's addresses that pods have: each at most once.

use std::collections::HashMap;
use std::sync::Mutex;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use crate::spec::containers;

/// A port of one address, or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    fn of(port: &ContainerPort) -> Option<Self> {
        Some(Self {
            ip: port.host_ip.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: port.host_port.filter(|port| *port > 0)?,
        })
    }

    fn clashes(&self, other: &Self) -> bool {
        let all = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || all(&self.ip) || all(&other.ip))
    }
}

/// Ports by the uid of the pod that has them.
#[derive(Default)]
pub struct Ports {
    taken: Mutex<HashMap<String, Vec<HostPort>>>,
}

impl Ports {
    /// Gives a pod the ports that it asks for, all or none: false when another pod has one of
    /// them. A pod that `runs` has them already.
    pub fn claim(&self, pod: &Pod, runs: bool) -> bool {
        let sidecars = containers::init(pod).iter().filter(|c| containers::is_sidecar(c));
        let all = sidecars.chain(&containers::spec(pod).containers);
        let wanted = all.flat_map(|c| c.ports.iter().flatten()).filter_map(HostPort::of);
        let wanted: Vec<_> = wanted.collect();
        let uid = containers::uid(pod);
        let mut taken = self.taken.lock().expect("no holder panics");
        let mut others = taken.iter().filter(|(owner, _)| *owner != uid).flat_map(|(_, p)| p);
        if !runs && others.any(|other| wanted.iter().any(|port| port.clashes(other))) {
            return false;
        }
        if !wanted.is_empty() {
            taken.insert(uid.to_owned(), wanted);
        }
        true
    }

    /// Takes a pod's ports back.
    pub fn release(&self, uid: &str) {
        self.taken.lock().expect("no holder panics").remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, ip: &str, port: i32) -> Pod {
        let ports = json!([{"containerPort": 80, "hostPort": port, "hostIP": ip}]);
        serde_json::from_value(json!({
            "metadata": {"uid": uid}, "spec": {"containers": [{"name": "a", "ports": ports}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_port_has_one_pod() {
        let ports = Ports::default();
        assert!(ports.claim(&pod("a", "", 80), false));
        assert!(ports.claim(&pod("a", "", 80), false), "it has it already");
        assert!(!ports.claim(&pod("b", "10.0.0.1", 80), false));
        assert!(ports.claim(&pod("b", "10.0.0.1", 81), false));
        assert!(ports.claim(&pod("c", "10.0.0.2", 81), false));
        assert!(ports.claim(&pod("d", "", 80), true), "a running pod has what it has");
        ports.release("a");
        assert!(!ports.claim(&pod("e", "", 80), false));
        ports.release("d");
        assert!(ports.claim(&pod("e", "", 80), false));
    }
}
