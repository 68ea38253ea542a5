//! Flags of `provisioner agent`.

use std::{net::SocketAddr, path::PathBuf};

/// Runs tenants on this host as the controller desires.
///
/// Needs root. Tenants' processes and workers outlive the agent: it may be stopped, killed and
/// upgraded at any time, and takes over what runs when it starts again.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentFlags {
    /// Name of this host, as registered with `provisioner init` or `provisioner host add`.
    #[arg(long, default_value = "h1")]
    pub host: String,
    /// Address on which the controller reaches this agent (mutual TLS).
    #[arg(long, default_value = "127.0.0.1:7443")]
    pub listen: SocketAddr,
    /// Everything that this agent keeps. Network namespaces and control groups are outside it;
    /// their names start with `marina-`.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Public address of the gateway to tenants' API servers.
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub gateway_listen: SocketAddr,
    /// What clients are told to connect to, when that is not the gateway's own address.
    #[arg(long)]
    pub gateway_advertise: Option<String>,
    /// Directory with etcd, kube-apiserver, kube-controller-manager and kube-scheduler.
    #[arg(long)]
    pub release_dir: PathBuf,
    /// Output directory of the node image build; needed for workers.
    #[arg(long, default_value = "/nonexistent")]
    pub image_dir: PathBuf,
    /// A worker driver as `name=executable`; may be repeated (`sandbox=…`, `qemu=…`).
    #[arg(long, value_name = "NAME=PATH")]
    pub driver: Vec<String>,
    /// Certificate of this agent (PEM) [default: <data-dir>/pki/agent.crt].
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of this agent (PEM) [default: <data-dir>/pki/agent.key].
    #[arg(long)]
    pub tls_key_file: Option<PathBuf>,
    /// CA that signs controllers (PEM) [default: <data-dir>/pki/region-ca.crt].
    #[arg(long)]
    pub region_ca_file: Option<PathBuf>,
    /// Loopback ports for tenants' processes, as `first-last`.
    #[arg(long, default_value = "20000-29999")]
    pub port_range: String,
    /// First user id for tenants; each cluster on this host gets its own.
    #[arg(long, default_value_t = 1_000_000_000)]
    pub first_uid: u32,
    /// End every process and worker on this host, remove what they had, and exit. No controller may
    /// be in charge of the host any more: it would ask for everything again.
    #[arg(long)]
    pub purge: bool,
    /// The launcher: this program, unless a test says otherwise.
    #[arg(long, hide = true)]
    pub launcher: Option<PathBuf>,
}
