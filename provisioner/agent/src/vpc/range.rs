//! Which addresses of a VPC are whose.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use provisioner_api::pb;

/// Addresses at the start of a VPC that belong to gateways; workers come after them.
const GATEWAY_ADDRESSES: u32 = 256;

/// The address ranges of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// Workers, and the gateways at its start.
    pub vpc: Ipv4Net,
    /// Pods.
    pub pods: Ipv4Net,
    /// Services.
    pub services: Ipv4Net,
}

impl Ranges {
    /// Reads them from the desired state.
    pub fn parse(vpc: &pb::Vpc) -> anyhow::Result<Self> {
        let net = |name: &str, text: &str| {
            text.parse::<Ipv4Net>().map_err(|e| anyhow::anyhow!("{name} {text:?}: {e}"))
        };
        Ok(Self {
            vpc: net("VPC CIDR", &vpc.cidr)?,
            pods: net("pod CIDR", &vpc.pod_cidr)?,
            services: net("service CIDR", &vpc.service_cidr)?,
        })
    }

    /// True for addresses of workers.
    pub fn is_worker(&self, ip: Ipv4Addr) -> bool {
        self.vpc.contains(&ip) && u32::from(ip) - u32::from(self.vpc.network()) >= GATEWAY_ADDRESSES
    }

    /// True for what an API server may dial: workers, pods and Services, never a gateway address
    /// (those lead out of the VPC).
    pub fn may_dial(&self, ip: Ipv4Addr) -> bool {
        if self.vpc.contains(&ip) {
            return self.is_worker(ip);
        }
        self.pods.contains(&ip) || self.services.contains(&ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workers_pods_and_services_may_be_dialled() {
        let vpc = pb::Vpc {
            cidr: "10.0.0.0/16".into(),
            pod_cidr: "10.244.0.0/16".into(),
            service_cidr: "10.96.0.0/16".into(),
            listeners: vec![],
        };
        let ranges = Ranges::parse(&vpc).unwrap();
        for (ip, allowed) in [
            ("10.0.1.5", true),
            ("10.0.255.1", true),
            ("10.244.3.9", true),
            ("10.96.0.10", true),
            ("10.0.0.1", false),
            ("10.0.0.255", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("10.1.0.1", false),
            ("8.8.8.8", false),
        ] {
            assert_eq!(ranges.may_dial(ip.parse().unwrap()), allowed, "{ip}");
        }
        assert!(Ranges::parse(&pb::Vpc { cidr: "x".into(), ..vpc }).is_err());
    }
}
