//! Command line.

use std::path::PathBuf;

use clap::Parser;
use component::logging::LogFlags;
use ipnet::Ipv4Net;

/// Connects this node's pods with those of the other nodes.
#[derive(Parser, Debug)]
#[command(name = "node-agent", version)]
pub struct Flags {
    /// Path to a kubeconfig file that allows to list and watch Nodes.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// This node's name.
    #[arg(long)]
    pub node_name: String,
    /// CIDR range of all pods: traffic inside it keeps its source address.
    #[arg(long)]
    pub cluster_cidr: Ipv4Net,
    /// Where the container runtime reads its CNI configuration.
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Largest packet of the pod network, in bytes.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(576..))]
    pub mtu: u16,
    /// Log level.
    #[command(flatten)]
    pub log: LogFlags,
}
