//! Service and Endpoints. Addresses and ports are allocated by `crate::alloc`.

use machinery::Cause;
use serde_json::{Value, json};

use super::{Context, Hook, Strategy, default_to, keep};

/// Service.
pub fn service() -> Strategy {
    Strategy {
        name: machinery::names::dns1035_label,
        on_create,
        on_update,
        check,
        hook: Hook::Service,
        ..Strategy::default()
    }
}

/// Endpoints.
pub fn endpoints() -> Strategy {
    Strategy { create_on_update: true, ..Strategy::default() }
}

/// True for types that have a cluster IP.
pub fn wants_cluster_ip(service: &Value) -> bool {
    service["spec"]["type"] != "ExternalName"
}

/// True for types that have node ports.
pub fn wants_node_ports(service: &Value) -> bool {
    match service["spec"]["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => service["spec"]["allocateLoadBalancerNodePorts"] != json!(false),
        _ => false,
    }
}

fn fill(object: &mut Value) {
    let spec = super::child(object, "spec");
    default_to(spec, "type", "ClusterIP".into());
    default_to(spec, "sessionAffinity", "None".into());
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if kind != "ExternalName" {
        default_to(spec, "internalTrafficPolicy", "Cluster".into());
        default_to(spec, "ipFamilies", json!(["IPv4"]));
        default_to(spec, "ipFamilyPolicy", "SingleStack".into());
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        default_to(spec, "externalTrafficPolicy", "Cluster".into());
    }
    if kind == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true.into());
    }
    if spec["sessionAffinity"] == "ClientIP" {
        default_to(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        default_to(port, "protocol", "TCP".into());
        let number = port["port"].clone();
        if port["targetPort"].is_null()
            || port["targetPort"] == json!(0)
            || port["targetPort"] == ""
        {
            port["targetPort"] = number;
        }
    }
}

fn on_create(object: &mut Value, _: &Context<'_>) {
    fill(object);
    object["status"] = json!({"loadBalancer": {}});
}

/// An update that does not name the addresses and ports keeps them; a changed type drops what
/// the new type does not have.
fn on_update(new: &mut Value, old: &Value) {
    fill(new);
    let old_spec = old["spec"].clone();
    let spec = &mut new["spec"];
    drop_dependent(spec, &old_spec);
    let unset = |v: &Value| v.is_null() || v == "";
    if spec["type"] == "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.as_object_mut().map(|s| s.remove(key));
        }
    } else if unset(&spec["clusterIP"]) && !unset(&old_spec["clusterIP"]) {
        keep(spec, &old_spec, "clusterIP");
        keep(spec, &old_spec, "clusterIPs");
    }
    if unset(&spec["healthCheckNodePort"]) && spec["externalTrafficPolicy"] == "Local" {
        keep(spec, &old_spec, "healthCheckNodePort");
    }
    if !wants_node_ports(new) {
        let was_node_port = wants_node_ports(old);
        for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
            if was_node_port {
                port.as_object_mut().map(|p| p.remove("nodePort"));
            }
        }
        return;
    }
    let old_ports = old_spec["ports"].as_array().cloned().unwrap_or_default();
    for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
        let same = |o: &&Value| o["port"] == port["port"] && o["protocol"] == port["protocol"];
        if let Some(known) = old_ports.iter().find(same).filter(|_| port["nodePort"].is_null()) {
            keep(port, known, "nodePort");
        }
    }
}

/// Fields that only some types have go when the type changes, unless they were changed as well.
fn drop_dependent(spec: &mut Value, old: &Value) {
    let external = |v: &Value| v["type"] == "NodePort" || v["type"] == "LoadBalancer";
    let balanced = |v: &Value| v["type"] == "LoadBalancer";
    let mut gone: Vec<&str> = Vec::new();
    if external(old) && !external(spec) {
        gone.push("externalTrafficPolicy");
    }
    if balanced(old) && !balanced(spec) {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"]);
    }
    for key in gone {
        if spec[key] == old[key]
            && let Some(map) = spec.as_object_mut()
        {
            map.remove(key);
        }
    }
}

fn check(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ports = new["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let headless = new["spec"]["clusterIP"] == "None";
    if ports.is_empty() && !headless && wants_cluster_ip(new) {
        causes.push(super::cause("FieldValueRequired", "spec.ports", "Required value"));
    }
    for (i, port) in ports.iter().enumerate() {
        if ports.len() > 1 && port["name"].as_str().unwrap_or_default().is_empty() {
            let field = format!("spec.ports[{i}].name");
            causes.push(super::cause("FieldValueRequired", &field, "Required value"));
        }
    }
    if let Some(old) = old {
        let (is, was) = (&new["spec"]["clusterIP"], &old["spec"]["clusterIP"]);
        let both = wants_cluster_ip(new) && wants_cluster_ip(old);
        if both && was.as_str().is_some_and(|ip| !ip.is_empty()) {
            causes.extend(super::immutable("spec.clusterIPs[0]", is, was).map(|c| Cause {
                message: c.message.replace("field is immutable", "may not change once set"),
                ..c
            }));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_addresses_has_no_node_ports() {
        let old = json!({"spec": {
            "type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "nodePort": 30080}],
        }});
        let mut new = old.clone();
        new["spec"]["type"] = "ExternalName".into();
        new["spec"]["externalName"] = "example.com".into();
        on_update(&mut new, &old);
        let spec = &new["spec"];
        for key in ["clusterIP", "clusterIPs", "externalTrafficPolicy"] {
            assert!(spec.get(key).is_none(), "{key}");
        }
        assert!(spec["ports"][0].get("nodePort").is_none());
    }
}
