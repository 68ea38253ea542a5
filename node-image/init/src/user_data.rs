//! What the provisioner tells a node about itself.
//!
//! Unknown fields are ignored: a newer provisioner may say more than an older image understands.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::system::System;

/// The document. Version 1.
#[derive(Debug, Clone, Deserialize)]
pub struct UserData {
    /// Version of the document's format; 1.
    pub version: u32,
    /// Name of the Node object and of the machine.
    pub node_name: String,
    /// The worker's own network card.
    pub network: Network,
    /// How to reach the control plane.
    pub api_server: ApiServer,
    /// All pods of the cluster.
    pub pod_cidr: String,
    /// Address of the cluster's DNS Service.
    pub dns_ip: String,
    /// Domain of the cluster's names.
    pub dns_domain: String,
    /// Labels to register with.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints to register with, as in the API's Node object.
    #[serde(default)]
    pub taints: Vec<serde_json::Value>,
    /// `spec.providerID` of the Node.
    #[serde(default)]
    pub provider_id: String,
    /// The most pods that the node takes.
    #[serde(default = "default_max_pods")]
    pub max_pods: u32,
    /// Credentials of kube-proxy and node-agent.
    pub kube_proxy: KubeProxy,
}

/// The network card and its one address.
#[derive(Debug, Clone, Deserialize)]
pub struct Network {
    /// Says which card is meant.
    pub mac: String,
    /// With prefix length: `10.0.1.5/16`.
    pub address: String,
    /// Default route.
    pub gateway: String,
}

/// The control plane.
#[derive(Debug, Clone, Deserialize)]
pub struct ApiServer {
    /// `https://<address>:<port>`.
    pub url: String,
    /// The cluster's certificate authority.
    pub ca_pem: String,
    /// Good for asking for the kubelet's own certificate.
    pub bootstrap_token: String,
}

/// kube-proxy's client certificate.
#[derive(Debug, Clone, Deserialize)]
pub struct KubeProxy {
    /// Certificate chain.
    pub client_cert_pem: String,
    /// Private key.
    pub client_key_pem: String,
}

fn default_max_pods() -> u32 {
    110
}

impl UserData {
    /// Reads the document where this kind of machine finds it.
    ///
    /// # Errors
    /// It is missing, or [`UserData::parse`] refuses it.
    pub fn read(system: System) -> anyhow::Result<Self> {
        let path = match system {
            System::VirtualMachine => "/sys/firmware/qemu_fw_cfg/by_name/opt/marina/user-data/raw",
            System::Sandbox => "/run/marina/user-data.json",
        };
        let bytes = std::fs::read(path).with_context(|| format!("reading {path}"))?;
        Self::parse(&bytes)
    }

    /// Reads and checks a document.
    ///
    /// # Errors
    /// It is no JSON of the right shape, or a field has an impossible value.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let data: Self = serde_json::from_slice(bytes).context("user-data")?;
        if data.version != 1 {
            bail!("user-data: version {} is unknown, this image reads version 1", data.version);
        }
        let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if data.node_name.is_empty()
            || data.node_name.len() > 63
            || !data.node_name.bytes().all(label)
        {
            bail!("user-data: node_name must be 1 to 63 of a-z, 0-9, '-' and '.'");
        }
        data.node_ip()?;
        let gateway: Result<IpAddr, _> = data.network.gateway.parse();
        gateway.context("user-data: network.gateway must be an IP address")?;
        Ok(data)
    }

    /// The node's address, without the prefix length.
    ///
    /// # Errors
    /// `network.address` is no address with prefix length.
    pub fn node_ip(&self) -> anyhow::Result<IpAddr> {
        let (address, prefix) = self
            .network
            .address
            .split_once('/')
            .context("user-data: network.address must be like 10.0.1.5/16")?;
        let address: IpAddr =
            address.parse().context("user-data: network.address is no IP address")?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if !prefix.parse::<u32>().is_ok_and(|p| p <= bits) {
            bail!("user-data: the prefix length of network.address must be 0 to {bits}");
        }
        Ok(address)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> serde_json::Value {
        serde_json::json!({
            "version": 1, "node_name": "demo-w1", "cluster_id": "c1", "surprise": true,
            "network": {"mac": "52:54:00:00:00:05", "address": "10.0.1.5/16", "gateway": "10.0.0.1"},
            "api_server": {"url": "https://10.0.0.1:7001", "ca_pem": "CA",
                           "bootstrap_token": "abcdef.0123456789abcdef"},
            "pod_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/16", "dns_ip": "10.96.0.10",
            "dns_domain": "cluster.local", "labels": {"marina.dev/node-group": "g", "a": "b"},
            "taints": [{"key": "k", "effect": "NoSchedule"}], "provider_id": "marina://c1/demo-w1",
            "max_pods": 50,
            "kube_proxy": {"client_cert_pem": "CERT", "client_key_pem": "KEY"},
        })
    }

    #[test]
    fn a_document_is_read_and_checked() {
        let parse = |v: &serde_json::Value| UserData::parse(v.to_string().as_bytes());
        let data = parse(&example()).unwrap();
        assert_eq!(data.node_ip().unwrap().to_string(), "10.0.1.5");
        for (pointer, bad, word) in [
            ("/version", serde_json::json!(2), "version 2"),
            ("/node_name", "Über".into(), "node_name"),
            ("/network/address", "10.0.1.5".into(), "network.address"),
            ("/network/address", "10.0.1.5/33".into(), "prefix length"),
            ("/network/gateway", "router".into(), "network.gateway"),
        ] {
            let mut document = example();
            *document.pointer_mut(pointer).unwrap() = bad;
            let error = format!("{:#}", parse(&document).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
