//! Services and what routes to them.

use std::collections::HashSet;
use std::net::IpAddr;

use machinery::names;
use serde_json::Value;

use super::faults::{int, items, text};
use super::labels::{check_labels, check_selector};
use super::pod::{check_port, port_name};
use super::{At, Faults};

pub(super) const NOT_AN_ADDRESS: &str =
    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
/// A day in seconds: the longest session affinity.
const AFFINITY_MAX: i64 = 86_400;

pub(super) fn service(service: &Value, faults: &mut Faults) {
    let spec = &service["spec"];
    let at = At::new("spec");
    let kind = text(spec, "type");
    let is_headless = text(spec, "clusterIP") == "None";
    if items(spec, "ports").is_empty() && !is_headless && kind != "ExternalName" {
        faults.required(&at.field("ports"), "");
    }
    if kind == "ExternalName" {
        match text(spec, "externalName") {
            "" => faults.required(&at.field("externalName"), ""),
            name => faults.text(
                &at.field("externalName"),
                name.trim_end_matches('.'),
                names::dns1123_subdomain,
            ),
        }
        if !matches!(text(spec, "clusterIP"), "" | "None") {
            let why = "may not be set when `type` is 'ExternalName'";
            faults.forbidden(&at.field("clusterIPs"), why);
        }
    } else if matches!(kind, "NodePort" | "LoadBalancer") && is_headless {
        let why = format!("may not be set to 'None' for {kind} services");
        faults.invalid(&At::new("spec.clusterIPs[0]"), "None", &why);
    }
    let address = text(spec, "clusterIP");
    if !matches!(address, "" | "None") && address.parse::<IpAddr>().is_err() {
        faults.invalid(&At::new("spec.clusterIPs[0]"), address, NOT_AN_ADDRESS);
    }
    check_labels(spec, "selector", &at, faults);
    service_ports(spec, kind, &at, faults);
    for (index, ip) in items(spec, "externalIPs").iter().filter_map(Value::as_str).enumerate() {
        if ip.parse::<IpAddr>().is_err() {
            let list = at.field("externalIPs");
            faults.invalid(&list.index(index), ip, NOT_AN_ADDRESS);
        }
    }
    if let Some(seconds) =
        spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").and_then(Value::as_i64)
        && !(1..=AFFINITY_MAX).contains(&seconds)
    {
        let why = format!("must be greater than 0 and less than {AFFINITY_MAX}");
        faults.invalid(
            &At::new("spec.sessionAffinityConfig.clientIP.timeoutSeconds"),
            seconds,
            &why,
        );
    }
    let is_external =
        matches!(kind, "NodePort" | "LoadBalancer") || !items(spec, "externalIPs").is_empty();
    if !text(spec, "externalTrafficPolicy").is_empty() && !is_external {
        let why = "may only be set for externally-accessible services";
        faults.invalid(
            &at.field("externalTrafficPolicy"),
            text(spec, "externalTrafficPolicy"),
            why,
        );
    }
}

fn service_ports(spec: &Value, kind: &str, at: &At<'_>, faults: &mut Faults) {
    let list = at.field("ports");
    let ports = items(spec, "ports");
    let (mut seen_names, mut seen_ports) = (HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let here = list.index(index);
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                faults.required(&here.field("name"), "");
            }
        } else {
            faults.text(&here.field("name"), name, names::dns1123_label);
            if !seen_names.insert(name) {
                faults.duplicate(&here.field("name"), name);
            }
        }
        let number = int(port, "port").unwrap_or_default();
        faults.range(&here.field("port"), number, 1, 65535);
        if !seen_ports.insert((number, text(port, "protocol"))) {
            faults.duplicate(
                &here,
                serde_json::json!({"port": number, "protocol": text(port, "protocol")}),
            );
        }
        if let Some(target) = port.get("targetPort") {
            check_port(target, &here.field("targetPort"), faults);
        }
        if let Some(node) = int(port, "nodePort").filter(|n| *n != 0) {
            if matches!(kind, "ClusterIP" | "ExternalName") {
                let why = format!("may not be used when `type` is '{kind}'");
                faults.forbidden(&here.field("nodePort"), &why);
            } else {
                faults.range(&here.field("nodePort"), node, 1, 65535);
            }
        }
    }
}

pub(super) fn ingress(ingress: &Value, faults: &mut Faults) {
    let spec = &ingress["spec"];
    let at = At::new("spec");
    if items(spec, "rules").is_empty() && spec.get("defaultBackend").is_none() {
        faults.invalid(&at, spec.clone(), "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(backend) = spec.get("defaultBackend") {
        ingress_backend(backend, &at.field("defaultBackend"), faults);
    }
    let rules = at.field("rules");
    for (index, rule) in items(spec, "rules").iter().enumerate() {
        let here = rules.index(index);
        let host = text(rule, "host");
        if host.parse::<IpAddr>().is_ok() {
            faults.invalid(&here.field("host"), host, "must be a DNS name, not an IP address");
        } else if !host.is_empty() {
            faults.text(
                &here.field("host"),
                host.strip_prefix("*.").unwrap_or(host),
                names::dns1123_subdomain,
            );
        }
        let Some(http) = rule.get("http") else { continue };
        let place = here.field("http");
        let paths = place.field("paths");
        if items(http, "paths").is_empty() {
            faults.required(&paths, "");
        }
        for (index, path) in items(http, "paths").iter().enumerate() {
            ingress_path(path, &paths.index(index), faults);
        }
    }
}

fn ingress_path(path: &Value, at: &At<'_>, faults: &mut Faults) {
    let kind = text(path, "pathType");
    if kind.is_empty() {
        faults.required(&at.field("pathType"), "pathType must be specified");
    }
    if matches!(kind, "Exact" | "Prefix") && !text(path, "path").starts_with('/') {
        faults.invalid(&at.field("path"), text(path, "path"), "must be an absolute path");
    }
    ingress_backend(&path["backend"], &at.field("backend"), faults);
}

fn ingress_backend(backend: &Value, at: &At<'_>, faults: &mut Faults) {
    match (backend.get("service"), backend.get("resource")) {
        (None, None) => faults.required(at, "resource or service backend is required"),
        (Some(_), Some(_)) => {
            faults.invalid(at, "", "cannot set both resource and service backends")
        }
        (Some(service), None) => {
            let here = at.field("service");
            let place = here.field("port");
            let port = &service["port"];
            match (text(port, "name"), int(port, "number").filter(|n| *n != 0)) {
                ("", None) => faults.required(&place, "port name or number is required"),
                ("", Some(number)) => faults.range(&place.field("number"), number, 1, 65535),
                (_, Some(_)) => {
                    faults.invalid(&place, "", "cannot set both port name & port number")
                }
                (name, None) => port_name(name, &place.field("name"), faults),
            }
        }
        (None, Some(_)) => {}
    }
}

pub(super) fn network_policy(policy: &Value, faults: &mut Faults) {
    let spec = &policy["spec"];
    let at = At::new("spec");
    if let Some(selector) = spec.get("podSelector") {
        check_selector(selector, &at.field("podSelector"), faults);
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let list = at.field(direction);
        for (index, rule) in items(spec, direction).iter().enumerate() {
            let here = list.index(index);
            let ports = here.field("ports");
            for (index, port) in items(rule, "ports").iter().enumerate() {
                if let Some(number) = port.get("port") {
                    let place = ports.index(index);
                    check_port(number, &place.field("port"), faults);
                }
            }
            let list = here.field(peers);
            for (index, peer) in items(rule, peers).iter().enumerate() {
                network_peer(peer, &list.index(index), faults);
            }
        }
    }
}

fn network_peer(peer: &Value, at: &At<'_>, faults: &mut Faults) {
    let parts = peer.as_object().map_or(0, serde_json::Map::len);
    if parts == 0 {
        faults.required(at, "must specify a peer");
    }
    if peer.get("ipBlock").is_some() && parts > 1 {
        faults.forbidden(at, "may not specify both ipBlock and another peer");
    }
    for name in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.get(name) {
            check_selector(selector, &at.field(name), faults);
        }
    }
    if let Some(block) = peer.get("ipBlock") {
        let cidr = text(block, "cidr");
        if !is_cidr(cidr) {
            let here = at.field("ipBlock");
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            faults.invalid(&here.field("cidr"), cidr, why);
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let max = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= max)
}

#[cfg(test)]
mod tests {
    use machinery::GroupVersionKind;
    use serde_json::json;

    use crate::table::Schema;

    #[test]
    fn a_service_needs_ports_that_can_be_told_apart() {
        let schema = Schema::get("1.35").expect("table");
        let gvk =
            GroupVersionKind { group: String::new(), version: "v1".into(), kind: "Service".into() };
        let faults_of = |spec: serde_json::Value| -> Vec<String> {
            let mut object = json!({"metadata": {"name": "s"}, "spec": spec});
            schema.apply_defaults(&gvk, &mut object);
            let causes = schema.validate_create(&gvk, &object);
            causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
        };
        let none: [&str; 0] = [];
        assert_eq!(faults_of(json!({"ports": [{"port": 80}], "selector": {"app": "x"}})), none);
        assert_eq!(faults_of(json!({"clusterIP": "None"})), none);
        assert_eq!(faults_of(json!({})), ["spec.ports: Required value"]);
        assert_eq!(
            faults_of(
                json!({"ports": [{"port": 80, "nodePort": 30000}, {"port": 0, "name": "b"}]})
            ),
            [
                "spec.ports[0].name: Required value",
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[1].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ]
        );
        assert_eq!(
            faults_of(json!({"type": "Magic", "ports": [{"port": 80}]})),
            [
                "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""
            ]
        );
    }
}
