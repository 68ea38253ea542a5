//! Command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use component::logging::LogFlags;

/// Answers DNS questions about Services and pods of this cluster.
#[derive(Parser, Debug)]
#[command(name = "cluster-dns", version)]
pub struct Flags {
    /// The cluster's domain.
    #[arg(long, default_value = "cluster.local")]
    pub domain: String,
    /// Address for DNS over UDP and TCP.
    #[arg(long, default_value = "0.0.0.0:53")]
    pub listen: SocketAddr,
    /// Address of `/health`: 200 while the process works.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub health: SocketAddr,
    /// Address of `/ready`: 200 once the caches are complete.
    #[arg(long, default_value = "0.0.0.0:8181")]
    pub ready: SocketAddr,
    /// Resolvers for names outside the cluster are read from this file.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Path to a kubeconfig file; without it the pod's ServiceAccount is used.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Log level.
    #[command(flatten)]
    pub log: LogFlags,
}
