//! Environment variables: `$(NAME)` expansion and the variables of Services.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Service;

/// Replaces `$(NAME)` by the value that `lookup` has; `$$(NAME)` and unknown names stay as
/// written (the former without its first `$`).
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|r| r.split_once(')'))
        {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// Whether `envFrom` may make a variable of this name: printable ASCII without `=`.
pub fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

/// The variables that point at Services: those of the pod's namespace when it wants them, and
/// always `kubernetes` of the namespace `default`.
pub fn services(services: &[Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut chosen: HashMap<&str, &Service> = HashMap::new();
    for service in services {
        let (Some(name), Some(ns)) = (&service.metadata.name, &service.metadata.namespace) else {
            continue;
        };
        let master = ns == "default" && name == "kubernetes";
        if links && ns == namespace {
            chosen.insert(name, service);
        } else if master {
            chosen.entry(name).or_insert(service);
        }
    }
    let mut vars = BTreeMap::new();
    for (name, service) in chosen {
        let Some(spec) = &service.spec else { continue };
        let ip = spec.cluster_ip.as_deref().unwrap_or_default();
        let ports = spec.ports.as_deref().unwrap_or_default();
        if ip.is_empty() || ip == "None" || ports.is_empty() {
            continue;
        }
        let prefix = upper(name);
        vars.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        vars.insert(format!("{prefix}_SERVICE_PORT"), ports[0].port.to_string());
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        for (index, port) in ports.iter().enumerate() {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                vars.insert(
                    format!("{prefix}_SERVICE_PORT_{}", upper(port_name)),
                    port.port.to_string(),
                );
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                vars.insert(format!("{prefix}_PORT"), url.clone());
            }
            let base = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            vars.insert(base.clone(), url);
            vars.insert(format!("{base}_PROTO"), protocol.to_lowercase());
            vars.insert(format!("{base}_PORT"), port.port.to_string());
            vars.insert(format!("{base}_ADDR"), ip.to_owned());
        }
    }
    vars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        let expand = |text| expand(text, lookup);
        assert_eq!(expand("x$(A)y"), "x1y");
        assert_eq!(expand("$$(A) $(B) $A $"), "$(A) $(B) $A $");
        assert_eq!(expand("$(A"), "$(A");
        assert_eq!(expand("$$$(A)"), "$1");
    }

    #[test]
    fn service_variables() {
        let service = |ns: &str, name: &str, ip: &str| -> Service {
            serde_json::from_value(serde_json::json!({"metadata": {"name": name, "namespace": ns},
                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}}))
            .unwrap()
        };
        let all = [
            service("default", "kubernetes", "10.96.0.1"),
            service("n", "my-web", "10.96.0.9"),
            service("n", "headless", "None"),
            service("other", "x", "10.96.0.8"),
        ];
        let vars = services(&all, "n", true);
        assert_eq!(vars["MY_WEB_SERVICE_HOST"], "10.96.0.9");
        assert_eq!(vars["MY_WEB_SERVICE_PORT_HTTP"], "80");
        assert_eq!(vars["MY_WEB_PORT_80_TCP"], "tcp://10.96.0.9:80");
        assert_eq!(vars["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert!(
            !vars.contains_key("X_SERVICE_HOST") && !vars.contains_key("HEADLESS_SERVICE_HOST")
        );
        assert!(!services(&all, "n", false).contains_key("MY_WEB_SERVICE_HOST"));
    }
}
