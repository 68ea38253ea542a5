//! Services and what routes to them.

use jiff::Timestamp;
use serde_json::Value;

use crate::cell::{self, NONE, UNSET, int_at, joined_or, list_at, str_at};
use crate::{AGE, Column, NAME, text, wide};

/// Addresses are shown in full up to this many.
const MOST: usize = 3;

pub(crate) const SERVICE: &[Column] = &[
    NAME,
    text("Type"),
    text("Cluster-IP"),
    text("External-IP"),
    text("Port(s)"),
    AGE,
    wide("Selector"),
];

pub(crate) fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let address = match list_at(service, "/spec/clusterIPs").first().and_then(Value::as_str) {
        Some(first) => first.into(),
        None => cell::text_or(service, "/spec/clusterIP", NONE),
    };
    let ports: Vec<String> = list_at(service, "/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (int_at(port, "/port"), str_at(port, "/protocol"));
            match int_at(port, "/nodePort") {
                0 => format!("{number}/{protocol}"),
                node => format!("{number}:{node}/{protocol}"),
            }
        })
        .collect();
    vec![
        cell::name(service),
        cell::text(service, "/spec/type"),
        address,
        external(service).into(),
        joined_or(&ports, ",", NONE).into(),
        cell::age(service, now),
        cell::labels(service, "/spec/selector").into(),
    ]
}

fn external(service: &Value) -> String {
    let given: Vec<String> = list_at(service, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    match str_at(service, "/spec/type") {
        "ExternalName" => str_at(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let mut all = balancer_addresses(service);
            all.extend(given);
            joined_or(&all, ",", "<pending>")
        }
        _ => joined_or(&given, ",", NONE),
    }
}

/// Addresses or host names in `status.loadBalancer`.
fn balancer_addresses(object: &Value) -> Vec<String> {
    let mut found: Vec<String> = list_at(object, "/status/loadBalancer/ingress")
        .iter()
        .filter_map(|ingress| {
            [str_at(ingress, "/ip"), str_at(ingress, "/hostname")]
                .into_iter()
                .find(|a| !a.is_empty())
        })
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

pub(crate) const ENDPOINTS: &[Column] = &[NAME, text("Endpoints"), AGE];

pub(crate) fn endpoints(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    let mut found = Vec::new();
    for subset in list_at(endpoints, "/subsets") {
        let addresses = || list_at(subset, "/addresses").iter().map(|a| str_at(a, "/ip"));
        let ports = list_at(subset, "/ports");
        if ports.is_empty() {
            found.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let port = int_at(port, "/port");
            found.extend(addresses().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{port}"),
                false => format!("{ip}:{port}"),
            }));
        }
    }
    let text = if found.is_empty() { NONE.to_owned() } else { cell::first(&found, MOST, ",") };
    vec![cell::name(endpoints), text.into(), cell::age(endpoints, now)]
}

pub(crate) const SLICE: &[Column] =
    &[NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE];

pub(crate) fn slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list_at(slice, "/ports")
        .iter()
        .map(|port| match (cell::plain_or(port, "/port", "*"), str_at(port, "/name")) {
            (port, name) if port == "*" && !name.is_empty() => name.to_owned(),
            (port, _) => port,
        })
        .collect();
    let addresses: Vec<String> = list_at(slice, "/endpoints")
        .iter()
        .flat_map(|endpoint| list_at(endpoint, "/addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let few = |parts: &[String]| match parts {
        [] => UNSET.to_owned(),
        some => cell::first(some, MOST, ","),
    };
    vec![
        cell::name(slice),
        cell::text(slice, "/addressType"),
        few(&ports).into(),
        few(&addresses).into(),
        cell::age(slice, now),
    ]
}

pub(crate) const INGRESS: &[Column] =
    &[NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE];

pub(crate) fn ingress(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let annotated = ingress
        .pointer("/metadata/annotations")
        .and_then(|a| a.get("kubernetes.io/ingress.class"))
        .and_then(Value::as_str);
    let class = match (str_at(ingress, "/spec/ingressClassName"), annotated) {
        ("", Some(old)) => old,
        ("", None) => NONE,
        (class, _) => class,
    };
    let hosts: Vec<String> = list_at(ingress, "/spec/rules")
        .iter()
        .map(|rule| str_at(rule, "/host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { cell::first(&hosts, MOST, ",") };
    let ports = if list_at(ingress, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        cell::name(ingress),
        class.into(),
        hosts.into(),
        balancer_addresses(ingress).join(",").into(),
        ports.into(),
        cell::age(ingress, now),
    ]
}

pub(crate) const INGRESS_CLASS: &[Column] = &[NAME, text("Controller"), text("Parameters"), AGE];

pub(crate) fn ingress_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = class.pointer("/spec/parameters").map(|p| {
        let (kind, name) = (str_at(p, "/kind"), str_at(p, "/name"));
        match str_at(p, "/apiGroup") {
            "" => format!("{kind}/{name}"),
            group => format!("{kind}.{group}/{name}"),
        }
    });
    vec![
        cell::name(class),
        cell::text(class, "/spec/controller"),
        parameters.unwrap_or_else(|| NONE.to_owned()).into(),
        cell::age(class, now),
    ]
}

pub(crate) const POLICY: &[Column] = &[NAME, text("Pod-Selector"), AGE];

pub(crate) fn policy(policy: &Value, now: Timestamp) -> Vec<Value> {
    let selector = cell::selector(policy, "/spec/podSelector");
    vec![cell::name(policy), selector.into(), cell::age(policy, now)]
}

pub(crate) const CIDR: &[Column] = &[NAME, text("CIDRs"), AGE];

pub(crate) fn cidr(cidr: &Value, now: Timestamp) -> Vec<Value> {
    let blocks: Vec<&str> = list_at(cidr, "/spec/cidrs").iter().filter_map(Value::as_str).collect();
    vec![cell::name(cidr), blocks.join(",").into(), cell::age(cidr, now)]
}

pub(crate) const ADDRESS: &[Column] = &[NAME, text("ParentRef")];

pub(crate) fn address(address: &Value, _now: Timestamp) -> Vec<Value> {
    let part = |name: &str| str_at(address, &format!("/spec/parentRef/{name}")).to_owned();
    let group = part("group");
    let parts = [part("resource"), part("namespace"), part("name")];
    let resource =
        if group.is_empty() { parts[0].clone() } else { format!("{}.{group}", parts[0]) };
    let rest: Vec<&str> = parts[1..].iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
    let text = if resource.is_empty() {
        NONE.to_owned()
    } else {
        format!("{resource}/{}", rest.join("/"))
    };
    vec![cell::name(address), text.into()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_shows_its_addresses_and_ports() {
        let now = Timestamp::UNIX_EPOCH;
        let object = json!({"spec": {"type": "NodePort", "clusterIPs": ["10.96.0.7"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
        assert_eq!(
            service(&object, now)[1..5],
            [json!("NodePort"), json!("10.96.0.7"), json!("<none>"), json!("80:30080/TCP,53/UDP")]
        );
        let balancer = json!({"spec": {"type": "LoadBalancer"}});
        assert_eq!(service(&balancer, now)[3], "<pending>");
    }

    #[test]
    fn many_endpoints_are_counted() {
        let addresses: Vec<Value> = (1..6).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
        let object = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(
            endpoints(&object, Timestamp::UNIX_EPOCH)[1],
            "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."
        );
    }
}
