//! The command line, with upstream's flag names. What the configuration file can say is said
//! there; the flags name files, endpoints and this node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Parser;

/// The node agent: runs the pods that the API server binds to this node.
#[derive(Parser, Clone, Debug)]
#[command(name = "kubelet", version)]
pub struct Flags {
    /// KubeletConfiguration file (kubelet.config.k8s.io/v1beta1, YAML or JSON).
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Kubeconfig with a bootstrap token, used while --kubeconfig does not exist.
    #[arg(long)]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Kubeconfig of this node; written after bootstrap.
    #[arg(long, default_value = "/var/lib/kubelet/kubeconfig")]
    pub kubeconfig: PathBuf,
    /// Where certificates and keys are kept.
    #[arg(long, default_value = "/var/lib/kubelet/pki")]
    pub cert_dir: PathBuf,
    /// Where pods' volumes and the kubelet's own state are kept.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Socket of the container runtime; wins over the file's containerRuntimeEndpoint.
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// Name of this node; the host's name when not given.
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// Address that the node reports as its InternalIP.
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    /// Labels for the node, as `key=value,key=value`.
    #[arg(long, default_value = "", value_parser = parse_labels)]
    pub node_labels: BTreeMap<String, String>,
    /// Node.spec.providerID.
    #[arg(long)]
    pub provider_id: Option<String>,
    /// Taints at registration, as `key=value:Effect,…`; added to the file's registerWithTaints.
    #[arg(long, value_delimiter = ',')]
    pub register_with_taints: Vec<String>,
    /// Image of the sandbox container: kept for compatibility, the runtime's setting decides.
    #[arg(long, hide = true)]
    pub pod_infra_container_image: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: component::logging::LogFlags,
}

fn parse_labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        machinery::names::qualified_name(key).map_err(|e| format!("label key {key:?}: {e:?}"))?;
        machinery::names::label_value(value)
            .map_err(|e| format!("label value {value:?}: {e:?}"))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_checked() {
        let labels = parse_labels("a=b, marina.dev/node-group=web,").unwrap();
        assert_eq!(labels["marina.dev/node-group"], "web");
        assert!(parse_labels("a b=c").is_err());
        assert!(parse_labels("").unwrap().is_empty());
    }
}
