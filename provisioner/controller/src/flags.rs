//! Flags of `provisioner controller`.

use std::path::PathBuf;

/// Plans and carries out what customers ask for.
///
/// Keeps no state of its own beside the database: it may be killed at any time, and a second one
/// takes over when the first is gone for a few seconds.
#[derive(Clone, Debug, clap::Args)]
pub struct ControllerFlags {
    /// Database file (SQLite); made and brought up to date as needed.
    #[arg(long)]
    pub database: PathBuf,
    /// File with the key that seals secrets in the database (see `provisioner init`).
    #[arg(long)]
    pub secret_key_file: PathBuf,
    /// Directory with region-ca.crt, controller.crt and controller.key.
    #[arg(long)]
    pub pki_dir: PathBuf,
    /// Domain of tenants' API servers at the gateway: `<cluster-id>.<domain>`.
    #[arg(long, default_value = "marina.local")]
    pub domain: String,
    /// Domain of Services inside clusters.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Simultaneous connections that the gateway allows to one cluster.
    #[arg(long, default_value_t = 4096)]
    pub gateway_max_connections: u32,
    /// Name of this replica in the lease [default: random].
    #[arg(long)]
    pub name: Option<String>,
}
