//! Upstream's flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use component::logging::LogFlags;

/// The Kubernetes network proxy: programs this node's nftables so that Services work.
#[derive(Parser, Debug)]
#[command(name = "kube-proxy", version)]
pub struct Flags {
    /// Path to a kubeconfig file with the API server's address and this proxy's credentials.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// This node's name, if it is not the host name. Needed for `trafficPolicy: Local`.
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// CIDR range of the pods. Accepted for compatibility; source addresses are kept inside it
    /// because no rule replaces them.
    #[arg(long)]
    pub cluster_cidr: Option<String>,
    /// Which kernel interface to use. Only `nftables` is there.
    #[arg(long, default_value = "nftables")]
    pub proxy_mode: String,
    /// Address of the health check server (`/healthz`, `/livez`).
    #[arg(long, default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: SocketAddr,
    /// Shortest time between two writes to the kernel, in milliseconds. Changes that arrive
    /// meanwhile are written together.
    #[arg(long, default_value_t = 50, value_name = "MS")]
    pub nftables_min_sync_period_ms: u64,
    /// Longest time between two writes of the whole table, in seconds.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    pub nftables_sync_period_seconds: u64,
    /// Connections tracked per processor. Accepted for compatibility; the limits of connection
    /// tracking stay as the machine has them, which is what 0 asks for.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub conntrack_max_per_core: u32,
    /// Connections tracked at least. Accepted for compatibility, as `--conntrack-max-per-core`.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub conntrack_min: u32,
    /// Log level.
    #[command(flatten)]
    pub log: LogFlags,
}
