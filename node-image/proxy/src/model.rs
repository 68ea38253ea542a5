//! What the proxy has to make true: service ports and the endpoints behind each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use component::ObjectKey;
use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Label of an EndpointSlice that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Services with this label are left to another proxy.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Services with this label have no cluster IP behaviour.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Session affinity time-out when none is given, in seconds (Service API default).
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// Transport protocol of a service port. SCTP is as in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    fn parse(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The name in nftables.
    pub fn as_nft(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Names one port of one Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Name of the port, empty for an unnamed one.
    pub port: String,
    /// Protocol of the port.
    pub protocol: Protocol,
}

impl PortKey {
    /// The Service.
    pub fn service(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.clone(), self.name.clone())
    }

    /// No port of the Service sorts before this one.
    pub fn first_of(service: &ObjectKey) -> Self {
        Self {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port: String::new(),
            protocol: Protocol::Tcp,
        }
    }

    /// True when it is a port of the Service.
    pub fn belongs_to(&self, service: &ObjectKey) -> bool {
        self.namespace == service.namespace && self.name == service.name
    }
}

/// Where a connection may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Address of the endpoint.
    pub ip: Ipv4Addr,
    /// Port of the endpoint.
    pub port: u16,
}

/// One port of one Service, with everything that decides about its traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The cluster IP.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// The addresses in `externalIPs` and the load balancer's status.
    pub external_addresses: BTreeSet<Ipv4Addr>,
    /// Port of those addresses.
    pub port: u16,
    /// Port on every node's addresses, if the Service has one.
    pub node_port: Option<u16>,
    /// Seconds for which a client keeps its endpoint, if it does.
    pub affinity_seconds: Option<u32>,
    /// Endpoints for connections from inside the cluster (`internalTrafficPolicy` applied).
    pub internal: BTreeSet<Target>,
    /// Endpoints for connections to the node port and external addresses (`externalTrafficPolicy` applied).
    pub external: BTreeSet<Target>,
    /// True when the clients of those keep their source address.
    pub external_local: bool,
}

/// The whole desired state.
pub type State = BTreeMap<PortKey, ServicePort>;

/// Computes the state of one Service from it and all its EndpointSlices, as node `node` sees it.
pub fn ports_of(service: &Service, slices: &[&EndpointSlice], node: &str) -> State {
    let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name)
    else {
        return State::new();
    };
    if ignored(service) {
        return State::new();
    }
    let spec = service.spec.as_ref().cloned().unwrap_or_default();
    let (addresses, external_addresses) = addresses_of(service);
    let affinity_seconds = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let configured = spec.session_affinity_config.as_ref();
        let seconds = configured.and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
        u32::try_from(seconds.unwrap_or(DEFAULT_AFFINITY_SECONDS)).unwrap_or(1)
    });
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");

    let mut state = State::new();
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Ok(number)) =
            (Protocol::parse(port.protocol.as_deref()), u16::try_from(port.port))
        else {
            continue;
        };
        let targets = targets_of(port, protocol, slices, node);
        let key = PortKey {
            namespace: namespace.clone(),
            name: name.clone(),
            port: port.name.clone().unwrap_or_default(),
            protocol,
        };
        state.insert(
            key,
            ServicePort {
                addresses: addresses.clone(),
                external_addresses: external_addresses.clone(),
                port: number,
                node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
                affinity_seconds,
                internal: targets.choose(internal_local),
                external: targets.choose(external_local),
                external_local,
            },
        );
    }
    state
}

fn ignored(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    let has = |label| labels.is_some_and(|labels| labels.contains_key(label));
    let spec = service.spec.as_ref();
    let external_name = spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName");
    has(PROXY_NAME_LABEL)
        || has(HEADLESS_LABEL)
        || external_name
        || addresses_of(service).0.is_empty()
}

/// Cluster IPs, and external addresses.
fn addresses_of(service: &Service) -> (BTreeSet<Ipv4Addr>, BTreeSet<Ipv4Addr>) {
    let Some(spec) = &service.spec else { return Default::default() };
    let cluster: BTreeSet<Ipv4Addr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(spec.cluster_ip.iter())
        .filter_map(|ip| ip.parse().ok())
        .collect();
    if cluster.is_empty() {
        return Default::default();
    }
    let ingress = service.status.iter().flat_map(|s| &s.load_balancer);
    let ingress = ingress.flat_map(|lb| lb.ingress.iter().flatten());
    let ingress = ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
    let ingress = ingress.filter_map(|i| i.ip.as_ref()?.parse().ok());
    let external = spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok());
    let external = external.chain(ingress).filter(|address| !cluster.contains(address)).collect();
    (cluster, external)
}

/// Endpoints of one port: the ready ones, and those that still serve while they terminate.
#[derive(Default)]
struct Targets {
    ready: BTreeSet<Target>,
    ready_local: BTreeSet<Target>,
    terminating: BTreeSet<Target>,
    terminating_local: BTreeSet<Target>,
}

impl Targets {
    /// Ready endpoints, or those that terminate but still serve when no other is left (KEP-1669).
    fn choose(&self, only_local: bool) -> BTreeSet<Target> {
        let (ready, terminating) = match only_local {
            true => (&self.ready_local, &self.terminating_local),
            false => (&self.ready, &self.terminating),
        };
        if ready.is_empty() { terminating.clone() } else { ready.clone() }
    }
}

fn targets_of(
    port: &ApiPort,
    protocol: Protocol,
    slices: &[&EndpointSlice],
    node: &str,
) -> Targets {
    let mut targets = Targets::default();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        for candidate in slice.ports.iter().flatten() {
            let same_name =
                candidate.name.as_deref().unwrap_or("") == port.name.as_deref().unwrap_or("");
            let number = candidate.port.and_then(|p| u16::try_from(p).ok());
            let (true, Some(number)) = (same_name, number) else { continue };
            if Protocol::parse(candidate.protocol.as_deref()) != Some(protocol) {
                continue;
            }
            for endpoint in &slice.endpoints {
                add_endpoint(&mut targets, endpoint, number, node);
            }
        }
    }
    targets
}

fn add_endpoint(targets: &mut Targets, endpoint: &Endpoint, port: u16, node: &str) {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let terminating = conditions.terminating.unwrap_or(false);
    let serving = conditions.serving.unwrap_or(ready);
    let local = endpoint.node_name.as_deref() == Some(node);
    let (all, local_ones) = match (ready, serving && terminating) {
        (true, _) => (&mut targets.ready, &mut targets.ready_local),
        (false, true) => (&mut targets.terminating, &mut targets.terminating_local),
        (false, false) => return,
    };
    for ip in endpoint.addresses.iter().filter_map(|address| address.parse().ok()) {
        all.insert(Target { ip, port });
        if local {
            local_ones.insert(Target { ip, port });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(extra: serde_json::Value) -> Service {
        let mut spec = json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ports": [{"name": "web", "port": 80, "protocol": "TCP", "nodePort": 30080}]});
        for (key, value) in extra.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        let object = json!({"metadata": {"namespace": "n", "name": "s"}, "spec": spec});
        serde_json::from_value(object).expect("a Service")
    }

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        let object = json!({"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}]});
        serde_json::from_value(object).expect("an EndpointSlice")
    }

    fn ips(targets: &BTreeSet<Target>) -> Vec<String> {
        targets.iter().map(|t| format!("{}:{}", t.ip, t.port)).collect()
    }

    #[test]
    fn only_ready_endpoints_get_traffic() {
        let slice = slice(json!([
            {"addresses": ["10.244.0.2"], "conditions": {"ready": true}, "nodeName": "a"},
            {"addresses": ["10.244.0.3"], "conditions": {"ready": false}, "nodeName": "b"},
            {"addresses": ["10.244.0.4"],
             "conditions": {"ready": false, "serving": true, "terminating": true}},
        ]));
        let state = ports_of(&service(json!({})), &[&slice], "a");
        let port = state.values().next().expect("one port");
        assert_eq!(ips(&port.internal), ["10.244.0.2:8080"]);
        assert_eq!(port.node_port, Some(30080));
    }

    #[test]
    fn terminating_endpoints_serve_when_no_other_is_left() {
        let slice = slice(json!([{"addresses": ["10.244.0.4"],
            "conditions": {"ready": false, "serving": true, "terminating": true}}]));
        let state = ports_of(&service(json!({})), &[&slice], "a");
        assert_eq!(ips(&state.values().next().expect("one port").internal), ["10.244.0.4:8080"]);
    }

    #[test]
    fn local_policies_keep_to_this_node() {
        let slice = slice(json!([
            {"addresses": ["10.244.0.2"], "nodeName": "a"},
            {"addresses": ["10.244.1.2"], "nodeName": "b"},
        ]));
        let service = service(json!({"externalTrafficPolicy": "Local", "type": "NodePort"}));
        let state = ports_of(&service, &[&slice], "b");
        let port = state.values().next().expect("one port");
        assert_eq!(ips(&port.external), ["10.244.1.2:8080"]);
        assert_eq!(port.internal.len(), 2);
    }

    #[test]
    fn headless_and_external_name_services_have_no_rules() {
        let none = json!({"clusterIP": "None", "clusterIPs": ["None"]});
        assert!(ports_of(&service(none), &[], "a").is_empty());
        assert!(ports_of(&service(json!({"type": "ExternalName"})), &[], "a").is_empty());
    }
}
