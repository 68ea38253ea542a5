//! What a worker is told at its first boot.

use anyhow::Context;
use marina_db::{
    clusters::Cluster,
    members::{Member, MemberKind},
    node_groups::NodeGroup,
    nodes::Node,
};
use serde_json::json;

use crate::{config::Settings, material::NodeCredentials, member_spec, region::Region};

/// Label of a Node with the name of its group.
const GROUP_LABEL: &str = "marina.dev/node-group";
const MAX_PODS: u32 = 110;

/// The document for the node's init, version 1.
pub(crate) fn user_data(
    region: &Region,
    settings: &Settings,
    cluster: &Cluster,
    group: &NodeGroup,
    node: &Node,
) -> anyhow::Result<Vec<u8>> {
    let id = cluster.id.as_str();
    let pki = region.pki.get(id).context("cluster without CAs")?;
    let credentials: &NodeCredentials =
        region.node_credentials.get(node.id.as_str()).context("node without credentials")?;
    let api: &Member = region
        .members_of(id)
        .find(|member| member.kind == MemberKind::ApiServer)
        .context("no API server")?;
    let gateway = member_spec::gateway_address(cluster, api.ordinal)?;
    let port = api.port("secure").context("API server without a port")?;
    let prefix = execute_prefix(cluster)?;
    let mut labels = group.spec.labels.clone();
    labels.insert(GROUP_LABEL.to_owned(), group.spec.name.clone());
    let document = json!({
        "version": 1,
        "node_name": node.name,
        "cluster_id": id,
        "network": {
            "mac": node.mac,
            "address": format!("{}/{prefix}", node.address),
            "gateway": member_spec::gateway_address(cluster, 0)?,
        },
        "api_server": {
            "url": format!("https://{gateway}:{port}"),
            "ca_pem": pki.cluster.cert_pem,
            "bootstrap_token": format!("{}.{}", credentials.token_id, credentials.token_secret),
        },
        "pod_cidr": cluster.spec.pod_cidr,
        "service_cidr": cluster.spec.service_cidr,
        "dns_ip": member_spec::nth(&cluster.spec.service_cidr, 10)?,
        "dns_domain": settings.cluster_domain,
        "labels": labels,
        "taints": group.spec.taints,
        "provider_id": format!("{}{}", provisioner_api::provider_id_prefix(id), node.name),
        "max_pods": MAX_PODS,
        "kube_proxy": {
            "client_cert_pem": credentials.kube_proxy.cert_pem,
            "client_key_pem": credentials.kube_proxy.key_pem,
        },
    });
    Ok(serde_json::to_vec(&document)?)
}

fn execute_prefix(cluster: &Cluster) -> anyhow::Result<u8> {
    Ok(crate::execute::ranges_of(cluster)?.0.prefix_len())
}
