//! What the kubelet runs with: flags and file put together, checked, with upstream's defaults.

pub mod duration;
mod file;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Taint;
use machinery::quantity::Quantity;

pub use file::File;

use crate::flags::Flags;

/// How requests to the kubelet's server are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// Everybody who is authenticated.
    AlwaysAllow,
    /// Group `system:masters`, and whoever a SubjectAccessReview allows.
    Webhook,
}

/// How cgroup paths are written for the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// `/kubepods/burstable/pod<uid>`.
    Cgroupfs,
    /// `kubepods-burstable-pod<uid>.slice`.
    Systemd,
}

/// Validated configuration.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Config {
    pub bootstrap_kubeconfig: Option<PathBuf>,
    pub kubeconfig: PathBuf,
    pub cert_dir: PathBuf,
    pub root_dir: PathBuf,
    pub runtime_endpoint: String,
    pub node_name: String,
    pub node_ip: Option<IpAddr>,
    pub node_labels: BTreeMap<String, String>,
    pub provider_id: Option<String>,
    pub register_node: bool,
    pub taints: Vec<Taint>,
    pub server: Option<SocketAddr>,
    pub healthz: Option<SocketAddr>,
    pub client_ca_file: Option<PathBuf>,
    pub authentication_webhook: bool,
    pub authorization: AuthorizationMode,
    pub serving_cert: Option<(PathBuf, PathBuf)>,
    pub rotate_certificates: bool,
    pub sync_frequency: Duration,
    pub status_update_frequency: Duration,
    pub status_report_frequency: Duration,
    pub lease_duration_seconds: i32,
    pub cluster_domain: String,
    pub cluster_dns: Vec<String>,
    pub resolv_conf: PathBuf,
    pub max_pods: u32,
    pub cgroup_driver: CgroupDriver,
    /// Absolute path without a slash at its end; empty for the root.
    pub cgroup_root: String,
    pub log_dir: PathBuf,
    pub log_max_bytes: u64,
    pub log_max_files: usize,
    pub image_gc_high_percent: u8,
    pub image_gc_low_percent: u8,
    pub image_gc_min_age: Duration,
    pub parallel_pulls: usize,
    /// Bytes and millicores taken off capacity for allocatable, by resource name.
    pub reserved: BTreeMap<String, Quantity>,
    /// Bytes of memory below which the node reports MemoryPressure.
    pub memory_available_min: i64,
    /// Shares of the disk (free bytes, 0.0–1.0) below which it reports DiskPressure.
    pub disk_available_min: f64,
    /// The file as read, for `/configz`.
    pub file: File,
}

/// Reads the file that `--config` names.
fn read(path: &Path) -> anyhow::Result<File> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let file: File =
        serde_yaml_ng::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
    let kind = file.kind.as_deref().unwrap_or("KubeletConfiguration");
    let version = file.api_version.as_deref().unwrap_or("kubelet.config.k8s.io/v1beta1");
    ensure!(
        kind == "KubeletConfiguration" && version == "kubelet.config.k8s.io/v1beta1",
        "{} holds a {kind} of {version}; only KubeletConfiguration of kubelet.config.k8s.io/v1beta1 is understood",
        path.display()
    );
    if !file.other.is_empty() {
        let names: Vec<_> = file.other.keys().map(String::as_str).collect();
        tracing::warn!(
            "fields of {} that have no effect here: {}",
            path.display(),
            names.join(", ")
        );
    }
    Ok(file)
}

/// `key=value:Effect` or `key:Effect`.
fn parse_taint(text: &str) -> anyhow::Result<Taint> {
    let (key, effect) =
        text.rsplit_once(':').with_context(|| format!("taint {text:?} has no effect"))?;
    let (key, value) = key.split_once('=').map_or((key, None), |(k, v)| (k, Some(v.to_owned())));
    ensure!(
        matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute"),
        "taint {text:?}: effect must be NoSchedule, PreferNoSchedule or NoExecute"
    );
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

fn quantity(field: &str, text: &str) -> anyhow::Result<Quantity> {
    Quantity::from_str(text)
        .ok()
        .with_context(|| format!("{field}: {text:?} is not a quantity such as 100Mi"))
}

fn node_name(given: Option<&str>) -> anyhow::Result<String> {
    let name = match given {
        Some(name) => name.trim().to_owned(),
        None => nix::unistd::gethostname()
            .context("reading the host's name")?
            .to_string_lossy()
            .into_owned(),
    };
    let name = name.to_lowercase();
    if let Err(faults) = machinery::names::dns1123_subdomain(&name) {
        bail!("node name {name:?}: {faults:?}");
    }
    Ok(name)
}

fn socket(
    address: Option<&str>,
    port: u16,
    default: Ipv4Addr,
) -> anyhow::Result<Option<SocketAddr>> {
    if port == 0 {
        return Ok(None);
    }
    let ip = match address {
        Some(text) => text.parse().with_context(|| format!("{text:?} is not an address"))?,
        None => IpAddr::V4(default),
    };
    Ok(Some(SocketAddr::new(ip, port)))
}

/// Paths end up in kubeconfigs, links and mounts, where "relative" would mean something else.
fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("the path {}", path.display()))
}

fn reserved(file: &File) -> anyhow::Result<BTreeMap<String, Quantity>> {
    let mut total: BTreeMap<String, Quantity> = BTreeMap::new();
    for (name, text) in file.system_reserved.iter().chain(&file.kube_reserved) {
        let value = quantity("systemReserved and kubeReserved", text)?;
        let sum = total.get(name).map_or(value, |have| *have + value);
        total.insert(name.clone(), sum);
    }
    Ok(total)
}

impl Config {
    /// Puts flags and file together.
    ///
    /// # Errors
    /// Names the flag or field that cannot be used and says what is allowed.
    pub fn load(flags: Flags) -> anyhow::Result<Self> {
        let file = flags.config.as_deref().map(read).transpose()?.unwrap_or_default();
        Self::from_parts(flags, file)
    }

    fn from_parts(flags: Flags, file: File) -> anyhow::Result<Self> {
        let limits = Limits::read(&file)?;
        let [server, healthz] = sockets(&file)?;
        Ok(Self {
            bootstrap_kubeconfig: flags.bootstrap_kubeconfig.clone(),
            kubeconfig: absolute(flags.kubeconfig.clone())?,
            cert_dir: absolute(flags.cert_dir.clone())?,
            root_dir: absolute(flags.root_dir.clone())?,
            runtime_endpoint: (flags.container_runtime_endpoint.clone())
                .or_else(|| file.container_runtime_endpoint.clone())
                .unwrap_or_else(|| "unix:///run/containerd/containerd.sock".into()),
            node_name: node_name(flags.hostname_override.as_deref())?,
            node_ip: flags.node_ip,
            taints: taints(&flags, &file)?,
            node_labels: flags.node_labels,
            provider_id: flags.provider_id,
            register_node: file.register_node.unwrap_or(true),
            server,
            healthz,
            client_ca_file: file.authentication.x509.client_ca_file.clone(),
            authentication_webhook: file.authentication.webhook.enabled.unwrap_or(true),
            authorization: authorization(&file)?,
            serving_cert: serving_cert(&file)?,
            rotate_certificates: file.rotate_certificates.unwrap_or(true),
            sync_frequency: file.sync_frequency.unwrap_or(Duration::from_secs(60)),
            status_update_frequency: file
                .node_status_update_frequency
                .unwrap_or(Duration::from_secs(10)),
            status_report_frequency: file
                .node_status_report_frequency
                .unwrap_or(Duration::from_secs(300)),
            lease_duration_seconds: file.node_lease_duration_seconds.unwrap_or(40).max(1),
            cluster_domain: file.cluster_domain.clone().unwrap_or_else(|| "cluster.local".into()),
            cluster_dns: file.cluster_dns.clone(),
            resolv_conf: file
                .resolv_conf
                .clone()
                .unwrap_or_else(|| "/etc/resolv.conf".into())
                .into(),
            max_pods: file.max_pods.unwrap_or(110),
            cgroup_driver: cgroup_driver(&file)?,
            cgroup_root: file.cgroup_root.as_deref().unwrap_or("").trim_end_matches('/').to_owned(),
            log_dir: absolute(file.pod_logs_dir.clone().unwrap_or_else(|| "/var/log/pods".into()))?,
            log_max_bytes: limits.log_max_bytes,
            log_max_files: file.container_log_max_files.unwrap_or(5).max(2),
            image_gc_high_percent: limits.image_gc.0,
            image_gc_low_percent: limits.image_gc.1,
            image_gc_min_age: file.image_minimum_gc_age.unwrap_or(Duration::from_secs(120)),
            parallel_pulls: limits.parallel_pulls,
            reserved: reserved(&file)?,
            memory_available_min: limits.memory_available_min,
            disk_available_min: limits.disk_available_min,
            file,
        })
    }
}

/// The numbers of the file.
struct Limits {
    log_max_bytes: u64,
    image_gc: (u8, u8),
    parallel_pulls: usize,
    memory_available_min: i64,
    disk_available_min: f64,
}

impl Limits {
    fn read(file: &File) -> anyhow::Result<Self> {
        let memory_min = file.eviction_hard.get("memory.available").map_or("100Mi", String::as_str);
        let disk_min = file.eviction_hard.get("nodefs.available").map_or("10%", String::as_str);
        let disk_percent: f64 =
            disk_min.strip_suffix('%').and_then(|n| n.parse().ok()).with_context(|| {
                format!("evictionHard: nodefs.available {disk_min:?} must be a percentage")
            })?;
        let log_max = file.container_log_max_size.as_deref().unwrap_or("10Mi");
        let high = file.image_gc_high_threshold_percent.unwrap_or(85);
        let low = file.image_gc_low_threshold_percent.unwrap_or(80);
        ensure!(
            high <= 100 && low < high,
            "imageGCLowThresholdPercent must be below imageGCHighThresholdPercent"
        );
        Ok(Self {
            log_max_bytes: quantity("containerLogMaxSize", log_max)?
                .value()
                .try_into()
                .unwrap_or(u64::MAX),
            image_gc: (high, low),
            parallel_pulls: match (
                file.serialize_image_pulls.unwrap_or(true),
                file.max_parallel_image_pulls,
            ) {
                (_, Some(n)) => n.max(1),
                (true, None) => 1,
                (false, None) => 16,
            },
            memory_available_min: quantity("evictionHard: memory.available", memory_min)?.value(),
            disk_available_min: disk_percent / 100.0,
        })
    }
}

fn taints(flags: &Flags, file: &File) -> anyhow::Result<Vec<Taint>> {
    let mut taints = file.register_with_taints.clone();
    for text in &flags.register_with_taints {
        taints.push(parse_taint(text)?);
    }
    Ok(taints)
}

/// Where the server and the health port listen.
fn sockets(file: &File) -> anyhow::Result<[Option<SocketAddr>; 2]> {
    let port = if file.enable_server.unwrap_or(true) { file.port.unwrap_or(10250) } else { 0 };
    let health = file.healthz_bind_address.as_deref();
    Ok([
        socket(file.address.as_deref(), port, Ipv4Addr::UNSPECIFIED)?,
        socket(health, file.healthz_port.unwrap_or(10248), Ipv4Addr::LOCALHOST)?,
    ])
}

fn serving_cert(file: &File) -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
    match (&file.tls_cert_file, &file.tls_private_key_file) {
        (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
        (None, None) => Ok(None),
        _ => bail!("tlsCertFile and tlsPrivateKeyFile must be given together"),
    }
}

fn cgroup_driver(file: &File) -> anyhow::Result<CgroupDriver> {
    match file.cgroup_driver.as_deref().unwrap_or("cgroupfs") {
        "cgroupfs" => Ok(CgroupDriver::Cgroupfs),
        "systemd" => Ok(CgroupDriver::Systemd),
        other => bail!("cgroupDriver {other:?}: must be cgroupfs or systemd"),
    }
}

fn authorization(file: &File) -> anyhow::Result<AuthorizationMode> {
    match file.authorization.mode.as_deref().unwrap_or("Webhook") {
        "Webhook" => Ok(AuthorizationMode::Webhook),
        "AlwaysAllow" => Ok(AuthorizationMode::AlwaysAllow),
        other => bail!("authorization.mode {other:?}: must be AlwaysAllow or Webhook"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn load(yaml: &str, args: &[&str]) -> anyhow::Result<Config> {
        let flags = Flags::parse_from(["kubelet", "--hostname-override", "N1"].iter().chain(args));
        Config::from_parts(flags, serde_yaml_ng::from_str(yaml)?)
    }

    #[test]
    fn defaults_are_upstreams() {
        let config = load("{}", &[]).unwrap();
        assert_eq!(config.node_name, "n1");
        assert_eq!(config.server.unwrap().port(), 10250);
        assert_eq!((config.max_pods, config.lease_duration_seconds), (110, 40));
        assert_eq!(config.log_max_bytes, 10 << 20);
        assert_eq!(config.memory_available_min, 100 << 20);
        assert_eq!(config.authorization, AuthorizationMode::Webhook);
    }

    #[test]
    fn the_file_is_read_with_upstream_names() {
        let yaml = "
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
syncFrequency: 1m30s
authentication: {x509: {clientCAFile: /ca.crt}, anonymous: {enabled: false}}
registerWithTaints: [{key: a, value: b, effect: NoSchedule}]
systemReserved: {memory: 100Mi}
kubeReserved: {memory: 28Mi}
";
        let config = load(yaml, &["--register-with-taints", "x:NoExecute,y=z:NoSchedule"]).unwrap();
        assert_eq!(config.cluster_dns, ["10.96.0.10"]);
        assert_eq!(config.sync_frequency, Duration::from_secs(90));
        assert_eq!(config.client_ca_file.unwrap(), Path::new("/ca.crt"));
        assert_eq!(config.taints.len(), 3);
        assert_eq!(config.reserved["memory"].value(), 128 << 20);
    }

    #[test]
    fn mistakes_name_their_field() {
        let error = |yaml| format!("{:#}", load(yaml, &[]).unwrap_err());
        assert!(error("cgroupDriver: x").contains("cgroupDriver"));
        assert!(error("authorization: {mode: x}").contains("authorization.mode"));
        assert!(error("tlsCertFile: /x").contains("tlsPrivateKeyFile"));
        assert!(error("syncFrequency: soon").contains("duration"));
    }
}
