//! The desired state of a host, from the picture of the region.

use anyhow::Context;
use marina_db::{
    clusters::Cluster,
    hosts::Host,
    members::{Member, MemberKind},
};
use provisioner_api::pb;

use crate::{config::Settings, member_spec, region::Region, user_data::user_data};

/// Everything that is to be on a host. A cluster that is being deleted is not.
///
/// # Errors
/// A cluster's part cannot be made. Then there is no desired state at all: one that leaves the
/// cluster out would remove it.
pub(crate) fn host_desired(
    region: &Region,
    settings: &Settings,
    host: &Host,
) -> anyhow::Result<pb::HostDesired> {
    let mut clusters = Vec::new();
    for cluster in &region.clusters {
        let here = region.members_of(cluster.id.as_str()).any(|m| m.host_id == host.id)
            || region.nodes_of(cluster.id.as_str()).any(|n| n.host_id == host.id);
        if here && cluster.deletion_requested_ms.is_none() {
            let desired = cluster_desired(region, settings, host, cluster)
                .with_context(|| format!("cluster {}", cluster.id))?;
            clusters.push(desired);
        }
    }
    Ok(pb::HostDesired {
        host: host.name.clone(),
        revision: u64::try_from(region.bell).unwrap_or(0),
        clusters,
    })
}

fn cluster_desired(
    region: &Region,
    settings: &Settings,
    host: &Host,
    cluster: &Cluster,
) -> anyhow::Result<pb::Cluster> {
    let id = cluster.id.as_str();
    let here: Vec<&Member> = region.members_of(id).filter(|m| m.host_id == host.id).collect();
    let api: Vec<&Member> =
        here.iter().copied().filter(|m| m.kind == MemberKind::ApiServer).collect();
    let mut listeners = Vec::new();
    for server in &api {
        listeners.push(pb::ApiListener {
            address: member_spec::gateway_address(cluster, server.ordinal)?.to_string(),
            port: server.port("secure").context("API server without a port")?.into(),
        });
    }
    let ports: Vec<u32> = listeners.iter().map(|listener| listener.port).collect();
    let mut members = Vec::new();
    for member in here.iter().filter(|member| member.started) {
        members.push(member_spec::spec(region, settings, cluster, member)?);
    }
    let serving = api.iter().any(|server| server.started);
    let bootstrap = match serving {
        true => Some(bootstrap(region, settings, cluster, ports.clone())?),
        false => None,
    };
    Ok(pb::Cluster {
        id: id.to_owned(),
        vpc: Some(pb::Vpc {
            cidr: cluster.spec.vpc_cidr.clone(),
            pod_cidr: cluster.spec.pod_cidr.clone(),
            service_cidr: cluster.spec.service_cidr.clone(),
            listeners,
        }),
        members,
        gateway: Some(pb::Gateway {
            server_name: settings.server_name(id),
            ports,
            max_connections: settings.gateway_max_connections,
        }),
        bootstrap,
        workers: workers(region, settings, host, cluster)?,
    })
}

fn bootstrap(
    region: &Region,
    settings: &Settings,
    cluster: &Cluster,
    api_ports: Vec<u32>,
) -> anyhow::Result<pb::Bootstrap> {
    let id = cluster.id.as_str();
    let pki = region.pki.get(id).context("cluster without CAs")?;
    let access = region.agent_access.get(id).context("cluster without access for its agent")?;
    let wanted = || region.nodes_of(id).filter(|node| node.deletion_requested_ms.is_none());
    let tokens = wanted()
        .filter(|node| !node.joined)
        .filter_map(|node| {
            let credentials = region.node_credentials.get(node.id.as_str())?;
            Some(pb::BootstrapToken {
                id: credentials.token_id.clone(),
                secret: credentials.token_secret.clone(),
                node_name: node.name.clone(),
            })
        })
        .collect();
    Ok(pb::Bootstrap {
        api_ports,
        ca_pem: pki.cluster.cert_pem.clone(),
        admin_cert_pem: access.client.cert_pem.clone(),
        admin_key_pem: access.client.key_pem.clone(),
        dns_ip: member_spec::nth(&cluster.spec.service_cidr, 10)?.to_string(),
        dns_domain: settings.cluster_domain.clone(),
        tokens,
        node_names: wanted().map(|node| node.name.clone()).collect(),
    })
}

fn workers(
    region: &Region,
    settings: &Settings,
    host: &Host,
    cluster: &Cluster,
) -> anyhow::Result<Vec<pb::Worker>> {
    let mut workers = Vec::new();
    for node in region.nodes_of(cluster.id.as_str()) {
        if node.host_id != host.id || node.deletion_requested_ms.is_some() {
            continue;
        }
        let group = region.groups.iter().find(|group| group.id == node.group_id);
        let group = group.context("node without a group")?;
        workers.push(pb::Worker {
            id: node.id.to_string(),
            node_name: node.name.clone(),
            driver: node.driver.as_str().to_owned(),
            mac: node.mac.clone(),
            vcpus: u32::try_from(node.vcpus)?,
            memory_mib: u64::try_from(node.memory_mib)?,
            disk_gib: u64::try_from(node.disk_gib)?,
            user_data: user_data(region, settings, cluster, group, node)?,
        });
    }
    Ok(workers)
}
