//! `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1) with upstream's field names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::duration;

/// The file as written. Absent fields take upstream's defaults in [`super::Config`].
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct File {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub address: Option<String>,
    pub port: Option<u16>,
    pub enable_server: Option<bool>,
    #[serde(with = "duration")]
    pub sync_frequency: Option<Duration>,
    #[serde(with = "duration")]
    pub node_status_update_frequency: Option<Duration>,
    #[serde(with = "duration")]
    pub node_status_report_frequency: Option<Duration>,
    pub node_lease_duration_seconds: Option<i32>,
    pub authentication: Authentication,
    pub authorization: Authorization,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_private_key_file: Option<PathBuf>,
    pub rotate_certificates: Option<bool>,
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: Option<bool>,
    pub register_node: Option<bool>,
    pub register_with_taints: Vec<Taint>,
    pub cluster_domain: Option<String>,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    pub resolv_conf: Option<String>,
    pub max_pods: Option<u32>,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    pub cgroup_driver: Option<String>,
    pub cgroup_root: Option<String>,
    pub container_runtime_endpoint: Option<String>,
    pub container_log_max_size: Option<String>,
    pub container_log_max_files: Option<usize>,
    pub pod_logs_dir: Option<PathBuf>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: Option<u8>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: Option<u8>,
    #[serde(rename = "imageMinimumGCAge", with = "duration")]
    pub image_minimum_gc_age: Option<Duration>,
    pub serialize_image_pulls: Option<bool>,
    pub max_parallel_image_pulls: Option<usize>,
    pub eviction_hard: BTreeMap<String, String>,
    pub system_reserved: BTreeMap<String, String>,
    pub kube_reserved: BTreeMap<String, String>,
    pub healthz_port: Option<u16>,
    pub healthz_bind_address: Option<String>,
    pub fail_swap_on: Option<bool>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Who may ask the kubelet's server.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Authentication {
    pub x509: X509,
    pub webhook: Switch,
    pub anonymous: Switch,
}

/// Client certificates.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct X509 {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<PathBuf>,
}

/// Something that can be turned on.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Switch {
    pub enabled: Option<bool>,
    #[serde(rename = "cacheTTL", with = "duration")]
    pub cache_ttl: Option<Duration>,
}

/// `AlwaysAllow` or `Webhook`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Authorization {
    pub mode: Option<String>,
    pub webhook: Option<Value>,
}
