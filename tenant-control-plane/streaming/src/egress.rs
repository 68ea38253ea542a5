//! `--egress-selector-config-file`. Source: `apiserver.k8s.io/v1beta1
//! EgressSelectorConfiguration`, KEP-1281.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::dial::Dialer;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    egress_selections: Vec<Selection>,
}

#[derive(Deserialize)]
struct Selection {
    name: String,
    connection: Connection,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    proxy_protocol: String,
    transport: Option<Transport>,
}

#[derive(Deserialize)]
struct Transport {
    tcp: Option<Tcp>,
    uds: Option<Uds>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tcp {
    url: String,
    tls_config: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Uds {
    uds_name: std::path::PathBuf,
}

/// Reads the file and returns the dialer for traffic of the given egress type (`cluster`,
/// `controlplane`, `etcd`). Types that the file does not name are dialed directly.
///
/// # Errors
/// When the file cannot be read, is of another kind or asks for a protocol that is not supported
/// (GRPC, TLS to the proxy).
pub fn dialer_from_file(path: &Path, egress_type: &str) -> anyhow::Result<Dialer> {
    dialer(&read(path)?, egress_type).with_context(|| context(path))
}

/// The dialer for webhooks that are named by URL: egress type `controlplane`, or `cluster` when the
/// file does not name it. Unlike upstream such a call never leaves directly where traffic to the
/// cluster has to go through a proxy: a tenant writes the URL, and it must not lead to the host.
///
/// # Errors
/// As [`dialer_from_file`].
pub fn url_dialer_from_file(path: &Path) -> anyhow::Result<Dialer> {
    let text = read(path)?;
    for egress_type in ["controlplane", "cluster"] {
        if let Some(dialer) = selected(&text, egress_type).with_context(|| context(path))? {
            return Ok(dialer);
        }
    }
    Ok(Dialer::Direct)
}

fn context(path: &Path) -> String {
    format!("egress-selector-config-file {}", path.display())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| context(path))
}

/// [`dialer_from_file`] for the file's content, YAML or JSON.
///
/// # Errors
/// As there.
pub fn dialer(text: &str, egress_type: &str) -> anyhow::Result<Dialer> {
    Ok(selected(text, egress_type)?.unwrap_or_default())
}

fn selected(text: &str, egress_type: &str) -> anyhow::Result<Option<Dialer>> {
    let file: Configuration = serde_yaml_ng::from_str(text)?;
    ensure!(file.kind == "EgressSelectorConfiguration", "kind {} is not expected", file.kind);
    let known = ["v1", "v1beta1", "v1alpha1"].map(|v| format!("apiserver.k8s.io/{v}"));
    ensure!(known.contains(&file.api_version), "apiVersion {} is unknown", file.api_version);
    let Some(selection) = file.egress_selections.into_iter().find(|s| s.name == egress_type) else {
        return Ok(None);
    };
    let connection = selection.connection;
    match (connection.proxy_protocol.as_str(), connection.transport) {
        ("Direct", None) => Ok(Some(Dialer::Direct)),
        ("Direct", Some(_)) => bail!("connection.transport must be empty with Direct"),
        ("HTTPConnect", Some(Transport { uds: Some(uds), tcp: None })) => {
            Ok(Some(Dialer::HttpConnectUnix { socket: uds.uds_name }))
        }
        ("HTTPConnect", Some(Transport { uds: None, tcp: Some(tcp) })) => {
            let address = tcp.url.strip_prefix("http://").filter(|_| tcp.tls_config.is_none());
            let address =
                address.context("transport.tcp: only http:// without TLS is supported")?;
            let address = address.trim_end_matches('/').to_owned();
            Ok(Some(Dialer::HttpConnectTcp { address }))
        }
        ("HTTPConnect", _) => bail!("connection.transport needs exactly one of tcp and uds"),
        (other, _) => bail!("connection.proxyProtocol {other} is not supported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport:
      uds:
        udsName: /run/egress.sock
- name: etcd
  connection:
    proxyProtocol: Direct
";

    #[test]
    fn each_egress_type_has_its_own_way_out() {
        let unix = Dialer::HttpConnectUnix { socket: "/run/egress.sock".into() };
        assert_eq!(dialer(FILE, "cluster").unwrap(), unix);
        assert_eq!(dialer(FILE, "etcd").unwrap(), Dialer::Direct);
        assert_eq!(dialer(FILE, "controlplane").unwrap(), Dialer::Direct);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let grpc = FILE.replace("HTTPConnect", "GRPC");
        assert!(dialer(&grpc, "cluster").unwrap_err().to_string().contains("GRPC"));
        assert!(dialer("kind: Pod\napiVersion: v1", "cluster").is_err());
    }
}
