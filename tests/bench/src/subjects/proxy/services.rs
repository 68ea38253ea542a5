//! The Services and their EndpointSlices.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::cluster::Cluster;
use crate::drive::{Load, drive};

/// Endpoints of each Service.
const ENDPOINTS: usize = 2;
/// Requests in flight while objects are created.
const CREATORS: usize = 32;
/// How long it may take to create all objects.
const CREATE_WITHIN: Duration = Duration::from_secs(1_800);

/// So many Services, numbered from 0 on.
#[derive(Default)]
pub struct Services {
    count: usize,
}

impl Services {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their cluster IPs.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        (0..self.count).map(address)
    }

    /// Creates Services until there are `count`, each with its slice before it.
    pub fn grow(
        &mut self,
        bench: &Bench,
        cluster: &mut Cluster,
        count: usize,
    ) -> anyhow::Result<()> {
        cluster.check()?;
        let services: Api<Service> = Api::default_namespaced(cluster.client.clone());
        let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client.clone());
        let operations = count - self.count.min(count);
        let load = Load { clients: CREATORS, operations, within: CREATE_WITHIN };
        let created = drive(load, self.count, async |_, index| {
            cluster.create(&slices, slice(index)).await?;
            cluster.create(&services, service(index)).await?;
            Ok(())
        });
        let created = bench.block_on(created).context("creating Services")?;
        ensure!(created.done() == operations, "only {} Services were created", created.done());
        self.count = self.count.max(count);
        Ok(())
    }

    /// Gives the last endpoint of a Service another address.
    pub async fn change(
        &self,
        cluster: &Cluster,
        index: usize,
        address: Ipv4Addr,
    ) -> anyhow::Result<()> {
        let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client.clone());
        let mut endpoints = endpoints(index);
        endpoints[ENDPOINTS - 1]["addresses"] = json!([address]);
        let patch = Patch::Merge(json!({"endpoints": endpoints}));
        slices.patch(&name(index), &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

fn name(index: usize) -> String {
    format!("bench-{index:05}")
}

/// From 10.96.1.0 on, below the end of the range of Services.
fn address(index: usize) -> Ipv4Addr {
    offset(Ipv4Addr::new(10, 96, 1, 0), index)
}

fn offset(first: Ipv4Addr, index: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) + u32::try_from(index).unwrap_or_default())
}

fn service(index: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name(index)},
        "spec": {
            "clusterIP": address(index),
            "ports": [{"name": "http", "port": super::PORT, "targetPort": 8080}],
        },
    })
}

fn slice(index: usize) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name(index),
            "labels": {"kubernetes.io/service-name": name(index)},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints(index),
    })
}

fn endpoints(index: usize) -> Vec<Value> {
    let address = |n| offset(Ipv4Addr::new(10, 244, 1, 0), index * ENDPOINTS + n);
    let endpoint = |n| json!({"addresses": [address(n)], "conditions": {"ready": true}});
    (0..ENDPOINTS).map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_30_000_services_stay_in_their_ranges() {
        assert_eq!(address(0), Ipv4Addr::new(10, 96, 1, 0));
        assert_eq!(address(29_999).octets()[..2], [10, 96]);
        assert_eq!(endpoints(29_999)[1]["addresses"][0], "10.244.235.95");
    }
}
