//! The files that each member of a control plane needs, by file name.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    authority::{Authority, DAY_SECS, Issued, Leaf, PkiError, Usage},
    cluster::{ADMIN_GROUP, ClusterPki},
    kubeconfig::Kubeconfig,
};

/// How long members' certificates live. The controller renews them long before.
pub const MEMBER_VALID_SECS: i64 = 365 * DAY_SECS;

/// File name to content.
pub type Files = BTreeMap<String, String>;

/// Names and addresses under which a cluster's API servers are reached.
#[derive(Clone, Debug)]
pub struct ApiServerNames {
    /// `<cluster-id>.<domain>`: the gateway's name for it.
    pub server_name: String,
    /// Domain of Services, such as `cluster.local`.
    pub dns_domain: String,
    /// Address of the `kubernetes` Service.
    pub service_ip: IpAddr,
    /// Addresses of the API servers inside the VPC.
    pub vpc_ips: Vec<IpAddr>,
}

/// Files of an etcd member: `server.*`, `peer.*`, `ca.crt`, `peer-ca.crt`.
pub fn etcd(pki: &ClusterPki, now_unix: i64) -> Result<Files, PkiError> {
    let mut files = Files::new();
    let leaf = Leaf {
        common_name: "etcd",
        organization: None,
        dns: vec!["localhost".to_owned()],
        ips: vec![IpAddr::from([127, 0, 0, 1])],
        usage: Usage::ServerAndClient,
        valid_secs: MEMBER_VALID_SECS,
    };
    put(&mut files, "server", &pki.etcd.issue(&leaf, now_unix)?);
    put(&mut files, "peer", &pki.etcd_peer.issue(&leaf, now_unix)?);
    files.insert("ca.crt".to_owned(), pki.etcd.cert_pem.clone());
    files.insert("peer-ca.crt".to_owned(), pki.etcd_peer.cert_pem.clone());
    Ok(files)
}

/// The name by which extension API servers know the API server.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// Files of an API server: `apiserver.*`, `etcd-client.*`, `kubelet-client.*`,
/// `front-proxy-client.*`, `ca.crt`, `etcd-ca.crt`, `front-proxy-ca.crt`, `sa.key`, `sa.pub`.
pub fn api_server(
    pki: &ClusterPki,
    names: &ApiServerNames,
    now_unix: i64,
) -> Result<Files, PkiError> {
    let mut files = Files::new();
    let mut dns: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
            .map(str::to_owned)
            .to_vec();
    dns.push(format!("kubernetes.default.svc.{}", names.dns_domain));
    dns.push(names.server_name.clone());
    let mut ips = vec![IpAddr::from([127, 0, 0, 1]), names.service_ip];
    ips.extend(&names.vpc_ips);
    let server = Leaf {
        common_name: "kube-apiserver",
        organization: None,
        dns,
        ips,
        usage: Usage::Server,
        valid_secs: MEMBER_VALID_SECS,
    };
    put(&mut files, "apiserver", &pki.cluster.issue(&server, now_unix)?);
    let etcd_client = client(&pki.etcd, "kube-apiserver-etcd-client", None, now_unix)?;
    put(&mut files, "etcd-client", &etcd_client);
    let kubelet_client =
        client(&pki.cluster, "kube-apiserver-kubelet-client", Some(ADMIN_GROUP), now_unix)?;
    put(&mut files, "kubelet-client", &kubelet_client);
    let front_proxy = client(&pki.front_proxy, FRONT_PROXY, None, now_unix)?;
    put(&mut files, "front-proxy-client", &front_proxy);
    files.insert("ca.crt".to_owned(), pki.cluster.cert_pem.clone());
    files.insert("etcd-ca.crt".to_owned(), pki.etcd.cert_pem.clone());
    files.insert("front-proxy-ca.crt".to_owned(), pki.front_proxy.cert_pem.clone());
    files.insert("sa.key".to_owned(), pki.service_account_key_pem.clone());
    files.insert("sa.pub".to_owned(), pki.service_account_pub_pem.clone());
    Ok(files)
}

/// Files of the controller-manager: `kubeconfig`, `ca.crt`, `ca.key`, `sa.key`. `server` is the
/// API server's loopback URL.
pub fn controller_manager(
    pki: &ClusterPki,
    server: &str,
    now_unix: i64,
) -> Result<Files, PkiError> {
    let mut files = component(pki, "system:kube-controller-manager", server, now_unix)?;
    files.insert("ca.crt".to_owned(), pki.cluster.cert_pem.clone());
    files.insert("ca.key".to_owned(), pki.cluster.key_pem.clone());
    files.insert("sa.key".to_owned(), pki.service_account_key_pem.clone());
    Ok(files)
}

/// Files of the scheduler: `kubeconfig`.
pub fn scheduler(pki: &ClusterPki, server: &str, now_unix: i64) -> Result<Files, PkiError> {
    component(pki, "system:kube-scheduler", server, now_unix)
}

fn component(pki: &ClusterPki, user: &str, server: &str, now_unix: i64) -> Result<Files, PkiError> {
    let issued = client(&pki.cluster, user, None, now_unix)?;
    let config = Kubeconfig {
        cluster: "marina",
        user,
        server,
        tls_server_name: None,
        ca_pem: &pki.cluster.cert_pem,
        client: &issued,
    };
    Ok(Files::from([("kubeconfig".to_owned(), config.to_yaml())]))
}

fn client(
    ca: &Authority,
    user: &str,
    group: Option<&str>,
    now_unix: i64,
) -> Result<Issued, PkiError> {
    ca.issue(&Leaf::client(user, group, MEMBER_VALID_SECS), now_unix)
}

fn put(files: &mut Files, name: &str, issued: &Issued) {
    files.insert(format!("{name}.crt"), issued.cert_pem.clone());
    files.insert(format!("{name}.key"), issued.key_pem.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_the_files_that_its_flags_name() {
        let now = 1_800_000_000;
        let pki = ClusterPki::new("3fa9c01d", now).unwrap();
        let names = ApiServerNames {
            server_name: "3fa9c01d.marina.local".into(),
            dns_domain: "cluster.local".into(),
            service_ip: IpAddr::from([10, 96, 0, 1]),
            vpc_ips: vec![IpAddr::from([10, 0, 0, 1])],
        };
        let keys = |files: Files| files.into_keys().collect::<Vec<_>>().join(" ");
        assert_eq!(
            keys(etcd(&pki, now).unwrap()),
            "ca.crt peer-ca.crt peer.crt peer.key server.crt server.key"
        );
        assert_eq!(
            keys(api_server(&pki, &names, now).unwrap()),
            "apiserver.crt apiserver.key ca.crt etcd-ca.crt etcd-client.crt etcd-client.key \
             front-proxy-ca.crt front-proxy-client.crt front-proxy-client.key kubelet-client.crt \
             kubelet-client.key sa.key sa.pub"
        );
        let url = "https://127.0.0.1:6443";
        assert_eq!(
            keys(controller_manager(&pki, url, now).unwrap()),
            "ca.crt ca.key kubeconfig sa.key"
        );
        assert_eq!(keys(scheduler(&pki, url, now).unwrap()), "kubeconfig");
    }
}
