//! Command-line flags, with upstream's names.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use component::leader::{LeaderElectionFlags, parse_duration};
use component::logging::LogFlags;
use component::serving::ServingFlags;

/// Runs the controllers of a Kubernetes cluster.
#[derive(Parser, Clone, Debug)]
#[command(name = "kube-controller-manager", version)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub serving: ServingFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub leader: LeaderElectionFlags,

    /// Kubeconfig with the API server's address and this component's credentials.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Kubeconfig for delegated authentication. Accepted; health and metrics need no credentials.
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Kubeconfig for delegated authorization. Accepted; see above.
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// CA of clients of the secure port. Accepted; see above.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// CA of front proxies of the secure port. Accepted; see above.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,

    /// Controllers to run: `*` for those on by default, `name` to add one, `-name` to leave one out.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,
    /// Let each controller act as a ServiceAccount of its own in `kube-system`, created if there is
    /// none. Otherwise all act as the kubeconfig's user, who then needs the roles of all of them
    /// (`system:controller:*`); an API server's default roles do not give it those.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub use_service_account_credentials: bool,

    /// Key that signs ServiceAccount token Secrets. Accepted; the API server signs all tokens.
    #[arg(long)]
    pub service_account_private_key_file: Option<PathBuf>,
    /// CA bundle published to every namespace as `kube-root-ca.crt`.
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
    /// CA certificate that signs CertificateSigningRequests.
    #[arg(long)]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// Key of that CA.
    #[arg(long)]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// Longest life of a signed certificate.
    #[arg(long, default_value = "8760h0m0s", value_parser = parse_duration)]
    pub cluster_signing_duration: Duration,

    /// Name of the cluster. Accepted.
    #[arg(long, default_value = "kubernetes")]
    pub cluster_name: String,
    /// Range of pod addresses.
    #[arg(long)]
    pub cluster_cidr: Option<String>,
    /// Range of Service addresses; no node gets a pod range that overlaps it.
    #[arg(long)]
    pub service_cluster_ip_range: Option<String>,
    /// Give each node a pod range out of `--cluster-cidr`.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub allocate_node_cidrs: bool,
    /// Prefix length of a node's pod range (24 for IPv4, 64 for IPv6, when 0).
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size: u8,
    /// The same for IPv4.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size_ipv4: u8,
    /// The same for IPv6.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size_ipv6: u8,

    /// How often nodes' health is looked at.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub node_monitor_period: Duration,
    /// How long a node may be silent before it counts as unhealthy.
    #[arg(long, default_value = "50s", value_parser = parse_duration)]
    pub node_monitor_grace_period: Duration,
    /// The same for a node that has just registered.
    #[arg(long, default_value = "1m0s", value_parser = parse_duration)]
    pub node_startup_grace_period: Duration,
    /// Nodes per second from which pods may be evicted.
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f32,
    /// The same while a zone is unhealthy. Accepted.
    #[arg(long, default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f32,
    /// Finished pods that may stay before the oldest are removed; 0 keeps all.
    #[arg(long, default_value_t = 12500)]
    pub terminated_pod_gc_threshold: usize,

    /// Deployments handled at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_deployment_syncs: usize,
    /// ReplicaSets handled at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_replicaset_syncs: usize,
    /// StatefulSets handled at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_statefulset_syncs: usize,
    /// DaemonSets handled at once.
    #[arg(long, default_value_t = 2)]
    pub concurrent_daemonset_syncs: usize,
    /// Jobs handled at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_job_syncs: usize,
    /// Endpoints handled at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_endpoint_syncs: usize,
    /// Services handled at once by the EndpointSlice controller.
    #[arg(long, default_value_t = 5)]
    pub concurrent_service_endpoint_syncs: usize,
    /// Namespaces removed at once.
    #[arg(long, default_value_t = 10)]
    pub concurrent_namespace_syncs: usize,
    /// Garbage-collector workers.
    #[arg(long, default_value_t = 20)]
    pub concurrent_gc_syncs: usize,
    /// ResourceQuotas handled at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_resource_quota_syncs: usize,
    /// How often everything that quotas limit is counted although nothing changed.
    #[arg(long, default_value = "5m0s", value_parser = parse_duration)]
    pub resource_quota_sync_period: Duration,
    /// Addresses per EndpointSlice.
    #[arg(long, default_value_t = 100)]
    pub max_endpoints_per_slice: usize,
    /// Run the garbage collector.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_garbage_collector: bool,

    /// Accepted; this client has no rate limit of its own.
    #[arg(long)]
    pub kube_api_qps: Option<f32>,
    /// Accepted; see above.
    #[arg(long)]
    pub kube_api_burst: Option<u32>,
    /// Accepted; there is no profiling endpoint.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub profiling: bool,
    /// Accepted; no feature gate changes these controllers.
    #[arg(long)]
    pub feature_gates: Option<String>,
}
