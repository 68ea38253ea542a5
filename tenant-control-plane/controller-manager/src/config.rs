//! Validated configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use component::leader::LeaderElectionFlags;
use component::serving::ServingFlags;
use ipnet::IpNet;

use crate::controllers::CONTROLLERS;
use crate::flags::Flags;

/// A timer needs some time between two ticks.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

/// Everything that the controllers need to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API server and the credentials are.
    pub kubeconfig: PathBuf,
    /// Health and metrics server.
    pub serving: ServingFlags,
    /// Leader election.
    pub leader: LeaderElectionFlags,
    /// Names of the controllers to run.
    pub enabled: Vec<&'static str>,
    /// Each controller acts as its own ServiceAccount.
    pub account_per_controller: bool,
    /// PEM bundle published to every namespace.
    pub root_ca: Option<String>,
    /// CA that signs certificates.
    pub signer: Option<SignerFiles>,
    /// Pod range and prefix length per node, when node ranges are to be allocated.
    pub node_ranges: Option<NodeRanges>,
    /// Node health timing.
    pub node_monitor: NodeMonitor,
    /// Finished pods that may stay; 0 keeps all.
    pub terminated_pod_threshold: usize,
    /// Addresses per EndpointSlice.
    pub max_endpoints_per_slice: usize,
    /// Time between counts of everything that quotas limit.
    pub resource_quota_sync_period: Duration,
    /// Workers per controller.
    pub workers: Workers,
}

/// Files of the signing CA and the longest life of what it signs.
#[derive(Clone, Debug)]
pub struct SignerFiles {
    /// CA certificate (PEM).
    pub cert: PathBuf,
    /// CA key (PEM).
    pub key: PathBuf,
    /// Longest life of a certificate.
    pub duration: Duration,
}

/// How pod ranges are cut for nodes.
#[derive(Clone, Debug)]
pub struct NodeRanges {
    /// All pod addresses.
    pub cluster: IpNet,
    /// Service addresses, left out when they lie inside.
    pub services: Option<IpNet>,
    /// Prefix length of one node's range.
    pub mask: u8,
}

/// When nodes count as unhealthy.
#[derive(Clone, Debug)]
pub struct NodeMonitor {
    /// Time between looks.
    pub period: Duration,
    /// Longest silence.
    pub grace: Duration,
    /// Longest silence right after registration.
    pub startup_grace: Duration,
}

/// Concurrent workers of the busier controllers.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Workers {
    pub deployment: usize,
    pub replicaset: usize,
    pub statefulset: usize,
    pub daemonset: usize,
    pub job: usize,
    pub endpoint: usize,
    pub endpointslice: usize,
    pub namespace: usize,
    pub gc: usize,
    pub resource_quota: usize,
}

impl Config {
    /// Checks the flags and reads the files that they name.
    ///
    /// # Errors
    /// Names the flag at fault.
    pub fn from_flags(flags: Flags) -> anyhow::Result<Self> {
        let mut enabled = enabled(&flags.controllers)?;
        if !flags.enable_garbage_collector {
            enabled.retain(|name| *name != "garbage-collector-controller");
        }
        let root_ca = flags.root_ca_file.as_deref().map(read_root_ca).transpose()?;
        let signer = match (flags.cluster_signing_cert_file, flags.cluster_signing_key_file) {
            (Some(cert), Some(key)) => {
                Some(SignerFiles { cert, key, duration: flags.cluster_signing_duration })
            }
            (None, None) => None,
            _ => bail!("--cluster-signing-cert-file and --cluster-signing-key-file go together"),
        };
        let masks = [
            flags.node_cidr_mask_size,
            flags.node_cidr_mask_size_ipv4,
            flags.node_cidr_mask_size_ipv6,
        ];
        let node_ranges = match (flags.allocate_node_cidrs, &flags.cluster_cidr) {
            (false, _) => None,
            (true, None) => bail!("--allocate-node-cidrs needs --cluster-cidr"),
            (true, Some(cidr)) => {
                Some(node_ranges(cidr, flags.service_cluster_ip_range.as_deref(), masks)?)
            }
        };
        Ok(Self {
            kubeconfig: flags.kubeconfig,
            serving: flags.serving,
            leader: flags.leader,
            enabled,
            account_per_controller: flags.use_service_account_credentials,
            root_ca,
            signer,
            node_ranges,
            node_monitor: NodeMonitor {
                period: flags.node_monitor_period,
                grace: flags.node_monitor_grace_period,
                startup_grace: flags.node_startup_grace_period,
            },
            terminated_pod_threshold: flags.terminated_pod_gc_threshold,
            max_endpoints_per_slice: flags.max_endpoints_per_slice.clamp(1, 1000),
            resource_quota_sync_period: flags.resource_quota_sync_period.max(SHORTEST_PERIOD),
            workers: Workers {
                deployment: flags.concurrent_deployment_syncs,
                replicaset: flags.concurrent_replicaset_syncs,
                statefulset: flags.concurrent_statefulset_syncs,
                daemonset: flags.concurrent_daemonset_syncs,
                job: flags.concurrent_job_syncs,
                endpoint: flags.concurrent_endpoint_syncs,
                endpointslice: flags.concurrent_service_endpoint_syncs,
                namespace: flags.concurrent_namespace_syncs,
                gc: flags.concurrent_gc_syncs,
                resource_quota: flags.concurrent_resource_quota_syncs,
            },
        })
    }
}

fn read_root_ca(path: &Path) -> anyhow::Result<String> {
    let pem = std::fs::read_to_string(path)
        .with_context(|| format!("--root-ca-file {}", path.display()))?;
    if !pem.contains("BEGIN CERTIFICATE") {
        bail!("--root-ca-file {}: there is no certificate in it", path.display());
    }
    Ok(pem)
}

fn node_ranges(cidr: &str, services: Option<&str>, masks: [u8; 3]) -> anyhow::Result<NodeRanges> {
    if cidr.contains(',') {
        bail!("--cluster-cidr {cidr}: only one range is supported");
    }
    let cluster: IpNet = cidr.parse().with_context(|| format!("--cluster-cidr {cidr}"))?;
    let services = services
        .map(|text| {
            text.parse::<IpNet>().with_context(|| format!("--service-cluster-ip-range {text}"))
        })
        .transpose()?;
    let [both, v4, v6] = masks;
    let (own, default) = if cluster.addr().is_ipv4() { (v4, 24) } else { (v6, 64) };
    let mask = [own, both, default].into_iter().find(|mask| *mask != 0).unwrap_or(default);
    if mask < cluster.prefix_len()
        || mask > cluster.max_prefix_len()
        || mask - cluster.prefix_len() > 16
    {
        bail!(
            "--node-cidr-mask-size {mask}: must be between {} and {} for --cluster-cidr {cidr}",
            cluster.prefix_len(),
            (cluster.prefix_len() + 16).min(cluster.max_prefix_len()),
        );
    }
    Ok(NodeRanges { cluster: cluster.trunc(), services, mask })
}

/// Applies `--controllers`: the last mention of a name decides, then `*`.
fn enabled(wishes: &[String]) -> anyhow::Result<Vec<&'static str>> {
    for wish in wishes.iter().filter(|wish| *wish != "*") {
        let name = wish.trim_start_matches('-');
        if !CONTROLLERS.iter().any(|entry| entry.is_called(name)) {
            let names: Vec<_> = CONTROLLERS.iter().map(|entry| entry.name).collect();
            bail!("--controllers: {name:?} is not a controller; there are {}", names.join(", "));
        }
    }
    let star = wishes.iter().any(|wish| wish == "*");
    let chosen = CONTROLLERS.iter().filter(|entry| {
        let mention = wishes.iter().rev().find(|w| entry.is_called(w.trim_start_matches('-')));
        match mention {
            Some(wish) => !wish.starts_with('-'),
            None => star && entry.default_on,
        }
    });
    Ok(chosen.map(|entry| entry.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_by_name_and_star() {
        let wish =
            |list: &[&str]| enabled(&list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let all = wish(&["*"]).unwrap();
        assert!(all.contains(&"deployment-controller"));
        assert!(!wish(&["*", "-deployment"]).unwrap().contains(&"deployment-controller"));
        assert_eq!(wish(&["deployment-controller"]).unwrap(), ["deployment-controller"]);
        assert!(wish(&["nonsense"]).is_err());
    }

    #[test]
    fn node_ranges_are_checked() {
        let ranges = node_ranges("10.244.0.0/16", Some("10.96.0.0/16"), [0, 0, 0]).unwrap();
        assert_eq!(ranges.mask, 24);
        assert!(node_ranges("10.244.0.0/16", None, [8, 0, 0]).is_err());
        assert!(node_ranges("10.244.0.0", None, [0, 0, 0]).is_err());
    }
}
