//! The `/etc/hosts` that the kubelet manages for a pod.

use k8s_openapi::api::core::v1::Pod;

use super::{containers, dns};

/// The file's text. A pod on the node's network gets the node's own file (`node_hosts`) first.
pub fn file(pod: &Pod, domain: &str, pod_ips: &[String], node_hosts: &str) -> String {
    let mut text = String::from("# Kubernetes-managed hosts file.\n");
    if containers::host_network(pod) {
        text = format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}");
        if !text.ends_with('\n') {
            text.push('\n');
        }
    } else {
        text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        text.push_str("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n");
        text.push_str("fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
        let (name, full) = dns::hostname(pod, domain);
        for ip in pod_ips {
            match full.as_ref().filter(|full| **full != name) {
                Some(full) => text.push_str(&format!("{ip}\t{full}\t{name}\n")),
                None => text.push_str(&format!("{ip}\t{name}\n")),
            }
        }
    }
    let aliases = containers::spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_name_and_aliases() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}}))
        .unwrap();
        let text = file(&pod, "cluster.local", &["10.244.0.3".into()], "");
        assert!(text.contains("\n10.244.0.3\tp\n"));
        assert!(text.ends_with("1.2.3.4\ta\tb\n"));
    }
}
