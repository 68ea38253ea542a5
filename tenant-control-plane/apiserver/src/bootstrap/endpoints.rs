//! Who serves this API: each replica keeps a record bound to a lease, and makes the endpoints of
//! the `kubernetes` Service out of all records. A replica that dies drops out with its lease.
//!
//! The record is `/registry/masterleases/<address>:<port>`: several replicas may advertise one
//! address under different ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use machinery::Status;
use serde_json::{Value, json};

use super::ensure;
use crate::api::Api;
use crate::store::Outcome;

const PREFIX: &str = "/registry/masterleases/";
const TTL_S: i64 = 15;

/// This replica's record.
pub struct Record {
    key: String,
    lease: i64,
}

impl Record {
    /// Nothing is written yet.
    pub fn new(api: &Api) -> Self {
        let (address, port) = (api.config.advertise_address, api.config.secure_port);
        Self { key: format!("{PREFIX}{address}:{port}"), lease: 0 }
    }

    /// Renews the record and brings the endpoints up to date.
    pub async fn reconcile(&mut self, api: &Arc<Api>) -> Result<(), Status> {
        self.renew(api).await?;
        publish(api, None).await
    }

    async fn renew(&mut self, api: &Arc<Api>) -> Result<(), Status> {
        if self.lease != 0 && api.store.keep_alive(self.lease).await? {
            return Ok(());
        }
        self.lease = api.store.grant(TTL_S).await?;
        let record = json!({
            "kind": "Endpoints", "apiVersion": "v1", "metadata": {},
            "subsets": [{
                "addresses": [{"ip": api.config.advertise_address.to_string()}],
                "ports": [{"name": "https", "port": api.config.secure_port, "protocol": "TCP"}],
            }],
        });
        let known = api.store.get(&self.key).await?.map_or(0, |kv| kv.mod_revision);
        let value = record.to_string().into_bytes();
        match api.store.put(&self.key, value, known, self.lease).await? {
            Outcome::Done(_) => Ok(()),
            Outcome::Changed(_) => {
                // Another process claims the same address and port; its lease decides.
                self.lease = 0;
                Err(Status::internal("another server writes this server's record"))
            }
        }
    }

    /// Takes this replica out of the endpoints.
    pub async fn withdraw(&mut self, api: &Arc<Api>) -> Result<(), Status> {
        publish(api, Some(&self.key)).await?;
        if self.lease != 0 {
            api.store.revoke(self.lease).await?;
        }
        Ok(())
    }
}

/// Addresses by port, of all records but one.
async fn replicas(
    api: &Arc<Api>,
    without: Option<&str>,
) -> Result<BTreeMap<i64, Vec<String>>, Status> {
    let page = api.store.range(PREFIX, PREFIX, 0, 0).await?;
    let mut by_port: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for kv in page.kvs {
        if without.is_some_and(|key| kv.key == key.as_bytes()) {
            continue;
        }
        let record: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
        let subset = &record["subsets"][0];
        let port = subset["ports"][0]["port"].as_i64();
        let ip = subset["addresses"][0]["ip"].as_str();
        if let (Some(port), Some(ip)) = (port, ip) {
            by_port.entry(port).or_default().push(ip.to_owned());
        }
    }
    by_port.values_mut().for_each(|ips| ips.sort());
    Ok(by_port)
}

async fn publish(api: &Arc<Api>, without: Option<&str>) -> Result<(), Status> {
    let by_port = replicas(api, without).await?;
    if by_port.is_empty() && without.is_some() {
        // The last one goes: stale endpoints do no more harm than none.
        return Ok(());
    }
    let port = |number: i64| json!({"name": "https", "port": number, "protocol": "TCP"});
    let subsets: Vec<Value> = by_port
        .iter()
        .map(|(number, ips)| {
            let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            json!({"addresses": addresses, "ports": [port(*number)]})
        })
        .collect();
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": subsets,
    });
    ensure::exactly(api, endpoints, &["subsets"]).await?;
    publish_slices(api, &by_port).await
}

/// One slice per port: within a slice every endpoint has the same ports.
async fn publish_slices(
    api: &Arc<Api>,
    by_port: &BTreeMap<i64, Vec<String>>,
) -> Result<(), Status> {
    let mut wanted = Vec::new();
    for (at, (number, ips)) in by_port.iter().enumerate() {
        let name = if at == 0 { "kubernetes".to_owned() } else { format!("kubernetes-{number}") };
        wanted.push(name.clone());
        let endpoints: Vec<Value> = ips
            .iter()
            .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
            .collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "https", "port": number, "protocol": "TCP"}],
        });
        ensure::exactly(api, slice, &["endpoints", "ports"]).await?;
    }
    remove_others(api, &wanted).await
}

async fn remove_others(api: &Arc<Api>, wanted: &[String]) -> Result<(), Status> {
    use machinery::{GroupResource, ObjectSource};
    let resource = GroupResource::new("discovery.k8s.io", "endpointslices");
    for slice in ObjectSource::list(&*api.caches, &resource, Some("default")) {
        let name = slice["metadata"]["name"].as_str().unwrap_or_default();
        let ours = slice["metadata"]["labels"]["kubernetes.io/service-name"] == "kubernetes"
            && slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"].is_null();
        if ours && name.starts_with("kubernetes") && !wanted.iter().any(|w| w == name) {
            let call = ensure::call(api, &slice, "delete")?;
            let options = crate::registry::options::DeleteOptions::default();
            crate::registry::delete::delete_object(&call, &options).await?;
        }
    }
    Ok(())
}
