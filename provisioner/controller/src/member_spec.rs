//! How each member of a control plane is run: its flags (upstream's names), files and health.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::Context;
use ipnet::Ipv4Net;
use marina_db::{
    clusters::Cluster,
    members::{Member, MemberKind},
};
use provisioner_api::{paths, pb};
use provisioner_pki::members::{self, ApiServerNames};

use crate::{config::Settings, material::MemberFiles, region::Region};

/// API servers that a certificate is good for: as many as a control plane may ever have.
const MAX_API_SERVERS: u32 = 5;
const EGRESS_FILE: &str = "egress.yaml";

/// The `n`th address of a range.
pub(crate) fn nth(cidr: &str, n: u32) -> anyhow::Result<Ipv4Addr> {
    let net: Ipv4Net = cidr.parse().with_context(|| format!("CIDR {cidr:?}"))?;
    Ok(Ipv4Addr::from(u32::from(net.network()).checked_add(n).context("CIDR is too small")?))
}

/// Address in the VPC that leads to an API server.
pub(crate) fn gateway_address(cluster: &Cluster, ordinal: i64) -> anyhow::Result<Ipv4Addr> {
    nth(&cluster.spec.vpc_cidr, 1 + u32::try_from(ordinal)?)
}

/// Names in an API server's certificate.
pub(crate) fn api_server_names(
    cluster: &Cluster,
    settings: &Settings,
) -> anyhow::Result<ApiServerNames> {
    let vpc_ips = (0..MAX_API_SERVERS)
        .map(|n| Ok(IpAddr::V4(gateway_address(cluster, n.into())?)))
        .collect::<anyhow::Result<_>>()?;
    Ok(ApiServerNames {
        server_name: settings.server_name(cluster.id.as_str()),
        dns_domain: settings.cluster_domain.clone(),
        service_ip: IpAddr::V4(nth(&cluster.spec.service_cidr, 1)?),
        vpc_ips,
    })
}

/// The API server that a controller-manager or scheduler talks to: the one of its ordinal.
pub(crate) fn api_server_url(region: &Region, member: &Member) -> anyhow::Result<String> {
    let servers: Vec<&Member> = region
        .members_of(member.cluster_id.as_str())
        .filter(|m| m.kind == MemberKind::ApiServer)
        .collect();
    let own = servers.iter().find(|m| m.ordinal == member.ordinal).or(servers.first());
    Ok(format!("https://127.0.0.1:{}", port(own.context("no API server")?, "secure")?))
}

/// Files of a member that are no secret.
pub(crate) fn plain_files(kind: MemberKind) -> BTreeMap<String, String> {
    if kind != MemberKind::ApiServer {
        return BTreeMap::new();
    }
    let egress = format!(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\n\
         egressSelections:\n- name: cluster\n  connection:\n    proxyProtocol: HTTPConnect\n    \
         transport:\n      uds:\n        udsName: {}\n",
        paths::EGRESS_SOCKET
    );
    BTreeMap::from([(EGRESS_FILE.to_owned(), egress)])
}

/// The member as its agent is to run it.
pub(crate) fn spec(
    region: &Region,
    settings: &Settings,
    cluster: &Cluster,
    member: &Member,
) -> anyhow::Result<pb::Member> {
    let files = region.member_files.get(member.id.as_str()).context("member without files")?;
    let (args, health) = match member.kind {
        MemberKind::Etcd => etcd(region, cluster, member)?,
        MemberKind::ApiServer => api_server(region, settings, cluster, member, files)?,
        MemberKind::ControllerManager => controller_manager(cluster, member)?,
        MemberKind::Scheduler => scheduler(member)?,
    };
    Ok(pb::Member {
        id: member.id.to_string(),
        name: format!("{}-{}", member.kind, member.ordinal),
        binary: member.kind.as_str().to_owned(),
        args,
        files: files.files.clone(),
        health: Some(health),
        limits: Some(limits(member.kind)),
    })
}

/// A second line of defence, far above what a member needs.
fn limits(kind: MemberKind) -> pb::Limits {
    let memory_mib = match kind {
        MemberKind::Etcd | MemberKind::ApiServer => 4096,
        MemberKind::ControllerManager | MemberKind::Scheduler => 1024,
    };
    pb::Limits { memory_mib, pids: 1024, cpu_shares: 1024 }
}

fn port(member: &Member, purpose: &str) -> anyhow::Result<u16> {
    let missing = || format!("{} {} has no {purpose} port", member.kind, member.id);
    member.port(purpose).with_context(missing)
}

fn config(name: &str) -> String {
    format!("{}/{name}", paths::CONFIG)
}

fn args<const N: usize>(pairs: [(&str, String); N]) -> Vec<String> {
    pairs.into_iter().map(|(flag, value)| format!("--{flag}={value}")).collect()
}

fn health(scheme: &str, port: u16, path: &str) -> pb::Health {
    pb::Health {
        scheme: scheme.to_owned(),
        port: port.into(),
        path: path.to_owned(),
        ..pb::Health::default()
    }
}

fn etcd(
    region: &Region,
    cluster: &Cluster,
    member: &Member,
) -> anyhow::Result<(Vec<String>, pb::Health)> {
    let url = |port: u16| format!("https://127.0.0.1:{port}");
    let mut peers = Vec::new();
    for peer in region.members_of(cluster.id.as_str()).filter(|m| m.kind == MemberKind::Etcd) {
        peers.push(format!("m{}={}", peer.ordinal, url(port(peer, "peer")?)));
    }
    let (client, peer) = (url(port(member, "client")?), url(port(member, "peer")?));
    let metrics = port(member, "metrics")?;
    let args = args([
        ("name", format!("m{}", member.ordinal)),
        ("data-dir", format!("{}/etcd", paths::DATA)),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer),
        ("initial-cluster", peers.join(",")),
        ("initial-cluster-state", "new".to_owned()),
        ("initial-cluster-token", cluster.id.to_string()),
        ("cert-file", config("server.crt")),
        ("key-file", config("server.key")),
        ("trusted-ca-file", config("ca.crt")),
        ("client-cert-auth", "true".to_owned()),
        ("peer-cert-file", config("peer.crt")),
        ("peer-key-file", config("peer.key")),
        ("peer-trusted-ca-file", config("peer-ca.crt")),
        ("peer-client-cert-auth", "true".to_owned()),
        ("listen-metrics-urls", format!("http://127.0.0.1:{metrics}")),
    ]);
    Ok((args, health("http", metrics, "/health")))
}

fn api_server(
    region: &Region,
    settings: &Settings,
    cluster: &Cluster,
    member: &Member,
    files: &MemberFiles,
) -> anyhow::Result<(Vec<String>, pb::Health)> {
    let mut stores = Vec::new();
    for etcd in region.members_of(cluster.id.as_str()).filter(|m| m.kind == MemberKind::Etcd) {
        stores.push(format!("https://127.0.0.1:{}", port(etcd, "client")?));
    }
    let secure = port(member, "secure")?;
    let issuer = format!("https://kubernetes.default.svc.{}", settings.cluster_domain);
    let mut args = args([
        ("bind-address", "127.0.0.1".to_owned()),
        ("secure-port", secure.to_string()),
        ("advertise-address", gateway_address(cluster, member.ordinal)?.to_string()),
        ("etcd-servers", stores.join(",")),
        ("etcd-cafile", config("etcd-ca.crt")),
        ("etcd-certfile", config("etcd-client.crt")),
        ("etcd-keyfile", config("etcd-client.key")),
        ("client-ca-file", config("ca.crt")),
        ("tls-cert-file", config("apiserver.crt")),
        ("tls-private-key-file", config("apiserver.key")),
        ("service-account-key-file", config("sa.pub")),
        ("service-account-signing-key-file", config("sa.key")),
        ("service-account-issuer", issuer),
        ("service-cluster-ip-range", cluster.spec.service_cidr.clone()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("enable-bootstrap-token-auth", "true".to_owned()),
        ("kubelet-client-certificate", config("kubelet-client.crt")),
        ("kubelet-client-key", config("kubelet-client.key")),
        // Names cannot be resolved on the way into the VPC.
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ("egress-selector-config-file", config(EGRESS_FILE)),
        ("emulated-version", cluster.spec.version.clone()),
        ("allow-privileged", "true".to_owned()),
    ]);
    if files.has_front_proxy() {
        args.extend(front_proxy());
    }
    // With a certificate: anonymous requests are refused until the default roles exist.
    let mut health = health("https", secure, "/readyz");
    if let Some(access) = region.agent_access.get(cluster.id.as_str()) {
        health.cert_pem.clone_from(&access.client.cert_pem);
        health.key_pem.clone_from(&access.client.key_pem);
    }
    Ok((args, health))
}

/// How extension API servers know the API server.
fn front_proxy() -> Vec<String> {
    args([
        ("proxy-client-cert-file", config("front-proxy-client.crt")),
        ("proxy-client-key-file", config("front-proxy-client.key")),
        ("requestheader-client-ca-file", config("front-proxy-ca.crt")),
        ("requestheader-allowed-names", members::FRONT_PROXY.to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
    ])
}

fn controller_manager(
    cluster: &Cluster,
    member: &Member,
) -> anyhow::Result<(Vec<String>, pb::Health)> {
    let secure = port(member, "secure")?;
    let pods: Ipv4Net = cluster.spec.pod_cidr.parse().context("pod CIDR")?;
    let args = args([
        ("kubeconfig", config("kubeconfig")),
        ("authentication-kubeconfig", config("kubeconfig")),
        ("authorization-kubeconfig", config("kubeconfig")),
        ("service-account-private-key-file", config("sa.key")),
        ("root-ca-file", config("ca.crt")),
        ("cluster-signing-cert-file", config("ca.crt")),
        ("cluster-signing-key-file", config("ca.key")),
        ("cluster-cidr", pods.to_string()),
        ("node-cidr-mask-size", provisioner_plan::node_mask(pods).to_string()),
        ("service-cluster-ip-range", cluster.spec.service_cidr.clone()),
        ("allocate-node-cidrs", "true".to_owned()),
        ("use-service-account-credentials", "true".to_owned()),
        ("leader-elect", "true".to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("secure-port", secure.to_string()),
    ]);
    Ok((args, health("https", secure, "/healthz")))
}

fn scheduler(member: &Member) -> anyhow::Result<(Vec<String>, pb::Health)> {
    let secure = port(member, "secure")?;
    let args = args([
        ("kubeconfig", config("kubeconfig")),
        ("leader-elect", "true".to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("secure-port", secure.to_string()),
    ]);
    Ok((args, health("https", secure, "/healthz")))
}
