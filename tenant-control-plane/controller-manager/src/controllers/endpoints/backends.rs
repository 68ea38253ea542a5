//! Which pods stand behind a Service, at which addresses and ports. Pure.

use std::sync::Arc;

use component::selector;
use k8s_openapi::api::core::v1::{Container, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

/// One port of a pod that serves a Service port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Name of the Service port, empty when it has none.
    pub name: String,
    /// Port of the pod.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Application protocol, as the Service says.
    pub app_protocol: Option<String>,
}

/// A pod behind a Service.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its address.
    pub ip: String,
    /// The ports that it serves the Service on.
    pub ports: Vec<Port>,
    /// Should be given new connections.
    pub ready: bool,
    /// Answers, whether or not it is being deleted.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
    /// Host name under the Service's domain, if the pod asks for one.
    pub hostname: Option<String>,
}

/// Everything about a pod that can matter to a Service.
#[derive(PartialEq)]
pub(super) struct Face {
    labels: Option<std::collections::BTreeMap<String, String>>,
    ips: Vec<String>,
    ready: bool,
    finished: bool,
    deleting: bool,
    node: Option<String>,
    hostname: Option<String>,
}

pub(super) fn face(pod: &Pod) -> Face {
    let spec = pod.spec.as_ref();
    Face {
        labels: pod.metadata.labels.clone(),
        ips: addresses(pod),
        ready: pods::is_ready(pod),
        finished: pods::is_finished(pod),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        node: spec.and_then(|spec| spec.node_name.clone()),
        hostname: spec.and_then(|spec| spec.hostname.clone()),
    }
}

fn addresses(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let mut all: Vec<_> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| ip.ip.clone())
        .filter(|ip| !ip.is_empty())
        .collect();
    if let Some(first) = status.pod_ip.clone().filter(|ip| !ip.is_empty() && !all.contains(ip)) {
        all.insert(0, first);
    }
    all
}

/// The IP families that a Service's slices are made for: `IPv4`, `IPv6`.
pub(super) fn families(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if !named.is_empty() {
        return named;
    }
    let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    vec![if address.contains(':') { "IPv6".to_owned() } else { "IPv4".to_owned() }]
}

fn is_of_family(ip: &str, family: &str) -> bool {
    ip.contains(':') == (family == "IPv6")
}

/// The pod's port that a Service port leads to; `None` when the pod has no port of that name.
fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let find = |container: &Container| {
                let ports = container.ports.iter().flatten();
                let mut named = ports.filter(|p| {
                    p.name.as_deref() == Some(name)
                        && p.protocol.as_deref().unwrap_or("TCP") == protocol
                });
                named.next().map(|p| p.container_port)
            };
            spec.containers.iter().chain(sidecars).find_map(find)
        }
    }
}

fn ports_of(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let mut found: Vec<_> = ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                port: target(pod, port)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    found.sort();
    found
}

/// The pods behind a Service for one IP family, ordered by address. Pods without an address and
/// finished pods do not count.
pub fn backends(service: &Service, pods: &[Arc<Pod>], family: &str) -> Vec<Backend> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(wanted) = spec.selector.as_ref().filter(|wanted| !wanted.is_empty()) else {
        return Vec::new();
    };
    let anyhow = spec.publish_not_ready_addresses == Some(true);
    let service_name = service.metadata.name.as_deref();
    let mut found: Vec<_> = pods
        .iter()
        .filter(|pod| selector::matches_map(wanted, pod.metadata.labels.as_ref()))
        .filter(|pod| !pods::is_finished(pod))
        .filter_map(|pod| {
            let ip = addresses(pod).into_iter().find(|ip| is_of_family(ip, family))?;
            let serving = pods::is_ready(pod);
            let terminating = pod.metadata.deletion_timestamp.is_some();
            let pod_spec = pod.spec.as_ref();
            let in_domain = pod_spec.and_then(|s| s.subdomain.as_deref()) == service_name;
            let hostname = pod_spec.and_then(|s| s.hostname.clone());
            Some(Backend {
                ip,
                ports: ports_of(service, pod),
                ready: anyhow || (serving && !terminating),
                serving,
                terminating,
                hostname: hostname.filter(|name| in_domain && !name.is_empty()),
                pod: pod.clone(),
            })
        })
        .collect();
    found.sort_by(|a, b| (&a.ip, &a.pod.metadata.uid).cmp(&(&b.ip, &b.pod.metadata.uid)));
    found
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn pod(name: &str, ip: &str, ready: bool, extra: serde_json::Value) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let mut value = json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "w1", "containers": [{"name": "c",
                "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": ready}]}
        });
        for (section, fields) in extra.as_object().unwrap() {
            let target = value[section].as_object_mut().unwrap();
            target.extend(fields.as_object().unwrap().clone());
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    pub(crate) fn service(extra: serde_json::Value) -> Service {
        let mut value = json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "s"},
            "spec": {"clusterIP": "10.96.0.7", "selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
        });
        value["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_pods_with_an_address_count_and_each_has_its_state() {
        let pods = [
            pod("b", "10.244.0.3", false, json!({})),
            pod("a", "10.244.0.2", true, json!({})),
            pod(
                "leaving",
                "10.244.0.4",
                true,
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            ),
            pod("no-ip", "", true, json!({})),
            pod("done", "10.244.0.5", true, json!({"status": {"phase": "Succeeded"}})),
            pod("other", "10.244.0.6", true, json!({"metadata": {"labels": {"app": "db"}}})),
        ];
        let found = backends(&service(json!({})), &pods, "IPv4");
        let states: Vec<_> = found
            .iter()
            .map(|b| (b.ip.as_str(), b.ready, b.serving, b.terminating, b.ports[0].port))
            .collect();
        assert_eq!(
            states,
            [
                ("10.244.0.2", true, true, false, 8080),
                ("10.244.0.3", false, false, false, 8080),
                ("10.244.0.4", false, true, true, 8080),
            ]
        );
        assert!(backends(&service(json!({})), &pods, "IPv6").is_empty());
        assert!(backends(&service(json!({"selector": null})), &pods, "IPv4").is_empty());
    }

    #[test]
    fn a_headless_service_gives_pods_their_names() {
        let named = pod(
            "db-0",
            "10.244.0.2",
            true,
            json!({"spec": {"hostname": "db-0", "subdomain": "web"}}),
        );
        let found = backends(&service(json!({"clusterIP": "None"})), &[named], "IPv4");
        assert_eq!(found[0].hostname.as_deref(), Some("db-0"));
    }

    #[test]
    fn a_port_name_is_looked_up_in_each_pod() {
        let pods = [
            pod("a", "10.244.0.2", true, json!({})),
            pod(
                "b",
                "10.244.0.3",
                true,
                json!({"spec": {"containers": [
                {"name": "c", "ports": [{"name": "http", "containerPort": 9090}]}]}}),
            ),
            pod("c", "10.244.0.4", true, json!({"spec": {"containers": [{"name": "c"}]}})),
        ];
        let found = backends(&service(json!({})), &pods, "IPv4");
        let ports: Vec<_> = found.iter().map(|b| b.ports.first().map(|p| p.port)).collect();
        assert_eq!(ports, [Some(8080), Some(9090), None]);
    }
}
