//! Validated configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::flags::Flags;

/// What the proxy runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Kubeconfig file.
    pub kubeconfig: PathBuf,
    /// This node.
    pub node: String,
    /// Health check server.
    pub healthz: SocketAddr,
    /// Shortest time between two writes.
    pub min_sync_period: Duration,
    /// Longest time between two full writes.
    pub sync_period: Duration,
}

impl TryFrom<Flags> for Config {
    type Error = anyhow::Error;

    fn try_from(flags: Flags) -> anyhow::Result<Self> {
        if flags.proxy_mode != "nftables" {
            bail!("--proxy-mode {}: only nftables is supported", flags.proxy_mode);
        }
        let node = match flags.hostname_override {
            Some(name) => name,
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")
                .context("no host name: give --hostname-override")?
                .trim()
                .to_lowercase(),
        };
        Ok(Self {
            kubeconfig: flags.kubeconfig,
            node,
            healthz: flags.healthz_bind_address,
            min_sync_period: Duration::from_millis(flags.nftables_min_sync_period_ms),
            sync_period: Duration::from_secs(flags.nftables_sync_period_seconds.max(1)),
        })
    }
}
