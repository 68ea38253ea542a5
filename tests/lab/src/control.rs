//! The control plane: four servers in the lab's network namespace, with upstream's flags.
//!
//! The flags are the same for ours and upstream's, but for those listed in [`upstream_only`].

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use provisioner_pki::authority::{DAY_SECS, Issued};
use provisioner_pki::cluster::{ADMIN_GROUP, ClusterPki};
use provisioner_pki::kubeconfig::Kubeconfig;
use provisioner_pki::members::{self, ApiServerNames};

use crate::mix::{Mix, Part};
use crate::places::Places;
use crate::process::{Process, Spec};

/// Address of the API server in the lab's network.
pub const ADDRESS: &str = "10.0.0.1";
/// Its port, there and on the namespace's loopback.
pub const PORT: u16 = 6443;
/// Every pod of the cluster.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// Every Service.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The DNS Service.
pub const DNS_IP: &str = "10.96.0.10";
/// Domain of Services.
pub const DNS_DOMAIN: &str = "cluster.local";

/// The cluster's authorities and files.
pub struct Files {
    dir: PathBuf,
    /// The authorities, for further certificates.
    pub pki: ClusterPki,
}

impl Files {
    /// Makes new authorities and writes what the servers need below `dir`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(dir: &Path) -> anyhow::Result<Self> {
        let now = now();
        let pki = ClusterPki::new("lab", now)?;
        let names = ApiServerNames {
            server_name: "lab.marina.local".into(),
            dns_domain: DNS_DOMAIN.into(),
            service_ip: "10.96.0.1".parse()?,
            vpc_ips: vec![ADDRESS.parse::<IpAddr>()?],
        };
        let url = format!("https://127.0.0.1:{PORT}");
        let files = Self { dir: dir.to_owned(), pki };
        files.put("etcd", members::etcd(&files.pki, now)?)?;
        files.put("kube-apiserver", members::api_server(&files.pki, &names, now)?)?;
        files
            .put("kube-controller-manager", members::controller_manager(&files.pki, &url, now)?)?;
        files.put("kube-scheduler", members::scheduler(&files.pki, &url, now)?)?;
        Ok(files)
    }

    fn put(&self, part: &str, files: BTreeMap<String, String>) -> anyhow::Result<()> {
        for (name, text) in files {
            put(&self.dir.join(part).join(name), &text)?;
        }
        Ok(())
    }

    /// Path of a server's file.
    pub fn path(&self, part: &str, name: &str) -> String {
        self.dir.join(part).join(name).to_string_lossy().into_owned()
    }

    /// A client certificate of the API server, good for a day.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn client(&self, user: &str, group: Option<&str>) -> anyhow::Result<Issued> {
        Ok(self.pki.client(user, group, DAY_SECS, now())?)
    }

    /// An administrator's kubeconfig for the API server at `server`, written to `to`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn admin_kubeconfig(&self, server: &str, to: &Path) -> anyhow::Result<()> {
        let client = self.client("lab-admin", Some(ADMIN_GROUP))?;
        let config = Kubeconfig {
            cluster: "lab",
            user: "lab-admin",
            server,
            tls_server_name: None,
            ca_pem: &self.pki.cluster.cert_pem,
            client: &client,
        };
        put(to, &config.to_yaml())
    }
}

/// Writes a file that only its owner reads.
///
/// # Errors
/// It cannot be written.
pub fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// How one server of the control plane is started.
///
/// # Errors
/// Its executable is not built.
pub fn spec(part: Part, mix: &Mix, places: &Places, files: &Files) -> anyhow::Result<Spec> {
    let origin = mix.of(part);
    let mut spec = Spec::new(part.executable(), places.executable(part, origin)?);
    match part {
        Part::Etcd => etcd(&mut spec, files),
        Part::ApiServer => api_server(&mut spec, files),
        Part::ControllerManager => controller_manager(&mut spec, files),
        Part::Scheduler => scheduler(&mut spec, files),
        Part::Kubelet | Part::Proxy | Part::Dns => {
            anyhow::bail!("{} is no part of the control plane", part.name())
        }
    }
    Ok(spec)
}

fn etcd(spec: &mut Spec, files: &Files) {
    let file = |name| files.path("etcd", name);
    let data = files.dir.join("etcd-data").to_string_lossy().into_owned();
    spec.flags(&[
        ("name", "lab".to_owned()),
        ("data-dir", data),
        ("listen-client-urls", "https://127.0.0.1:2379".to_owned()),
        ("advertise-client-urls", "https://127.0.0.1:2379".to_owned()),
        ("listen-peer-urls", "https://127.0.0.1:2380".to_owned()),
        ("initial-advertise-peer-urls", "https://127.0.0.1:2380".to_owned()),
        ("initial-cluster", "lab=https://127.0.0.1:2380".to_owned()),
        ("listen-metrics-urls", "http://127.0.0.1:2381".to_owned()),
        ("cert-file", file("server.crt")),
        ("key-file", file("server.key")),
        ("trusted-ca-file", file("ca.crt")),
        ("client-cert-auth", "true".to_owned()),
        ("peer-cert-file", file("peer.crt")),
        ("peer-key-file", file("peer.key")),
        ("peer-trusted-ca-file", file("peer-ca.crt")),
        ("peer-client-cert-auth", "true".to_owned()),
    ]);
}

fn api_server(spec: &mut Spec, files: &Files) {
    let file = |name| files.path("kube-apiserver", name);
    spec.flags(&[
        ("bind-address", "0.0.0.0".to_owned()),
        ("secure-port", PORT.to_string()),
        ("advertise-address", ADDRESS.to_owned()),
        ("etcd-servers", "https://127.0.0.1:2379".to_owned()),
        ("etcd-cafile", file("etcd-ca.crt")),
        ("etcd-certfile", file("etcd-client.crt")),
        ("etcd-keyfile", file("etcd-client.key")),
        ("client-ca-file", file("ca.crt")),
        ("tls-cert-file", file("apiserver.crt")),
        ("tls-private-key-file", file("apiserver.key")),
        ("service-account-key-file", file("sa.pub")),
        ("service-account-signing-key-file", file("sa.key")),
        ("service-account-issuer", format!("https://kubernetes.default.svc.{DNS_DOMAIN}")),
        ("service-cluster-ip-range", SERVICE_CIDR.to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("enable-bootstrap-token-auth", "true".to_owned()),
        ("kubelet-client-certificate", file("kubelet-client.crt")),
        ("kubelet-client-key", file("kubelet-client.key")),
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ("proxy-client-cert-file", file("front-proxy-client.crt")),
        ("proxy-client-key-file", file("front-proxy-client.key")),
        // Services are reached by their endpoints: no kube-proxy serves this namespace.
        ("enable-aggregator-routing", "true".to_owned()),
        ("requestheader-client-ca-file", file("front-proxy-ca.crt")),
        ("requestheader-allowed-names", members::FRONT_PROXY.to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
        ("allow-privileged", "true".to_owned()),
    ]);
}

fn controller_manager(spec: &mut Spec, files: &Files) {
    let file = |name| files.path("kube-controller-manager", name);
    spec.flags(&[
        ("kubeconfig", file("kubeconfig")),
        ("authentication-kubeconfig", file("kubeconfig")),
        ("authorization-kubeconfig", file("kubeconfig")),
        ("service-account-private-key-file", file("sa.key")),
        ("root-ca-file", file("ca.crt")),
        ("cluster-signing-cert-file", file("ca.crt")),
        ("cluster-signing-key-file", file("ca.key")),
        ("cluster-cidr", POD_CIDR.to_owned()),
        ("service-cluster-ip-range", SERVICE_CIDR.to_owned()),
        ("allocate-node-cidrs", "true".to_owned()),
        // Its own identity may only read.
        ("use-service-account-credentials", "true".to_owned()),
        ("leader-elect", "false".to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("secure-port", "10257".to_owned()),
    ]);
}

fn scheduler(spec: &mut Spec, files: &Files) {
    spec.flags(&[
        ("kubeconfig", files.path("kube-scheduler", "kubeconfig")),
        ("leader-elect", "false".to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("secure-port", "10259".to_owned()),
    ]);
}

/// Starts some of the servers in `netns`.
///
/// # Errors
/// One cannot be started.
pub fn start(
    parts: &[Part],
    mix: &Mix,
    places: &Places,
    files: &Files,
    netns: &Path,
    logs: &Path,
) -> anyhow::Result<BTreeMap<Part, Process>> {
    let group = netns.file_name().unwrap_or_default().to_string_lossy();
    let mut running = BTreeMap::new();
    for part in parts {
        let mut spec = spec(*part, mix, places, files)?;
        spec.netns = Some(netns.to_owned());
        running.insert(*part, Process::start(spec, &group, logs)?);
    }
    Ok(running)
}
