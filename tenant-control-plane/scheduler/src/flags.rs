//! Command-line flags, with upstream's names.

use std::path::PathBuf;

use clap::{ArgAction, Parser};
use component::leader::LeaderElectionFlags;
use component::logging::LogFlags;
use component::serving::ServingFlags;

/// Assigns pods to nodes.
#[derive(Parser, Clone, Debug)]
#[command(name = "kube-scheduler", version)]
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
    /// Accepted; this client has no rate limit of its own.
    #[arg(long)]
    pub kube_api_qps: Option<f32>,
    /// Accepted; see above.
    #[arg(long)]
    pub kube_api_burst: Option<u32>,
    /// Accepted; there is no profiling endpoint.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub profiling: bool,
    /// Accepted; no feature gate changes the plugins.
    #[arg(long)]
    pub feature_gates: Option<String>,
}
