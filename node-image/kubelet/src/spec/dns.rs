//! A pod's `resolv.conf`, host name and fully qualified name.

use cri::pb::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use super::containers;

/// The cluster's DNS as the kubelet is configured.
#[derive(Clone, Debug, Default)]
pub struct ClusterDns {
    /// Addresses of the cluster's DNS.
    pub servers: Vec<String>,
    /// Such as `cluster.local`.
    pub domain: String,
}

/// Reads a `resolv.conf`. Of several `search` lines the last counts.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines().map(|l| l.split(['#', ';']).next().unwrap_or_default()) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                config.searches = words.map(|w| w.trim_end_matches('.').to_owned()).collect()
            }
            Some("options") => config.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    config
}

fn merge_options(base: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for option in more {
        let name = option.split(':').next().unwrap_or_default().to_owned();
        base.retain(|have| have.split(':').next() != Some(&name));
        base.push(option);
    }
}

fn deduplicate(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

/// The DNS settings of a pod's sandbox; `host` is the node's own `resolv.conf`.
pub fn config(pod: &Pod, cluster: &ClusterDns, host: &DnsConfig) -> DnsConfig {
    let spec = containers::spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster_first = match policy {
        "ClusterFirst" => !containers::host_network(pod),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut config = if policy == "None" {
        DnsConfig::default()
    } else if cluster_first && !cluster.servers.is_empty() {
        let domain = &cluster.domain;
        let mut searches = Vec::new();
        if !domain.is_empty() {
            searches.push(format!("{}.svc.{domain}", containers::namespace(pod)));
            searches.push(format!("svc.{domain}"));
            searches.push(domain.clone());
        }
        searches.extend(host.searches.iter().cloned());
        DnsConfig { servers: cluster.servers.clone(), searches, options: vec!["ndots:5".into()] }
    } else {
        host.clone()
    };
    if let Some(own) = &spec.dns_config {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        let options = own.options.iter().flatten().filter_map(|o| {
            let name = o.name.clone()?;
            Some(o.value.as_ref().map_or(name.clone(), |v| format!("{name}:{v}")))
        });
        merge_options(&mut config.options, options);
    }
    deduplicate(&mut config.servers);
    deduplicate(&mut config.searches);
    config
}

/// The host name inside the pod and, when it has a subdomain, its fully qualified name.
pub fn hostname(pod: &Pod, domain: &str) -> (String, Option<String>) {
    let spec = containers::spec(pod);
    if let Some(name) = spec.hostname_override.as_deref().filter(|n| !n.is_empty()) {
        return (name.to_owned(), None);
    }
    let name =
        spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or_else(|| containers::name(pod));
    // 63 is the longest label; a name may not end in what remains of a cut.
    let name = name.get(..63).unwrap_or(name).trim_end_matches(['-', '.']).to_owned();
    let subdomain = spec.subdomain.as_deref().filter(|s| !s.is_empty());
    let full = subdomain.map(|s| format!("{name}.{s}.{}.svc.{domain}", containers::namespace(pod)));
    match (&full, spec.set_hostname_as_fqdn) {
        (Some(fqdn), Some(true)) => (fqdn.clone(), full),
        _ => (name, full),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(
            serde_json::json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn policies() {
        let cluster =
            ClusterDns { servers: vec!["10.96.0.10".into()], domain: "cluster.local".into() };
        let host = parse("# x\nnameserver 1.1.1.1\nsearch lan.\noptions edns0\n");
        let first = config(&pod(serde_json::json!({"containers": []})), &cluster, &host);
        assert_eq!(first.servers, ["10.96.0.10"]);
        assert_eq!(
            first.searches,
            ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"]
        );
        assert_eq!(first.options, ["ndots:5"]);
        let hostnet = config(
            &pod(serde_json::json!({"containers": [], "hostNetwork": true})),
            &cluster,
            &host,
        );
        assert_eq!(hostnet, host);
        let own = serde_json::json!({"containers": [], "dnsPolicy": "None", "dnsConfig":
            {"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}});
        let own = config(&pod(own), &cluster, &host);
        assert_eq!(
            (own.servers, own.options),
            (vec!["9.9.9.9".to_owned()], vec!["ndots:2".into(), "rotate".into()])
        );
    }

    #[test]
    fn names() {
        let plain = pod(serde_json::json!({"containers": []}));
        assert_eq!(hostname(&plain, "c.l"), ("p".into(), None));
        let set = pod(serde_json::json!({"containers": [], "hostname": "h", "subdomain": "s"}));
        assert_eq!(hostname(&set, "c.l"), ("h".into(), Some("h.s.n.svc.c.l".into())));
    }
}
