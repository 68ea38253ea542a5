//! Cluster IPs and node ports of Services.
//!
//! An allocation is part of the transaction that writes the Service, so that neither can exist
//! without the other and two replicas of the API server can never give the same one twice:
//! - a cluster IP is an `IPAddress` object (KEP-1880), created if it does not exist;
//! - node ports are one bitmap below `/registry/ranges/servicenodeports`, replaced if it is
//!   unchanged since it was read.

pub mod bitmap;
pub mod repair;

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use machinery::{Cause, GroupResource, ObjectSource, Status};
use serde_json::{Value, json};

use crate::cache::Caches;
use crate::store::{ANY, Store, Write};
use crate::strategy::cause;
use crate::strategy::service::{wants_cluster_ip, wants_node_ports};
use bitmap::Bitmap;

/// Key of the node ports' bitmap.
pub const NODE_PORTS_KEY: &str = "/registry/ranges/servicenodeports";
const ADDRESSES_PREFIX: &str = "/registry/ipaddresses";
const RANDOM_TRIES: usize = 64;

/// Allocates for Services.
pub struct ServiceAllocator {
    store: Arc<Store>,
    caches: Arc<Caches>,
    cidr: Ipv4Net,
    /// First and last node port.
    node_ports: (u16, u16),
}

fn invalid(service: &Value, causes: Vec<Cause>) -> Status {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    Status::invalid("", "Service", name, causes)
}

/// The node ports that a Service holds.
pub fn ports_of(service: &Value) -> Vec<u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let own = ports.filter_map(|p| p["nodePort"].as_u64());
    let health = service["spec"]["healthCheckNodePort"].as_u64();
    let mut all: Vec<u16> =
        own.chain(health).filter_map(|p| u16::try_from(p).ok()).filter(|p| *p != 0).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The cluster IP that a Service holds.
pub fn ip_of(service: &Value) -> Option<Ipv4Addr> {
    service["spec"]["clusterIP"].as_str()?.parse().ok()
}

impl ServiceAllocator {
    /// An allocator for a range of addresses and one of ports.
    pub fn new(
        store: Arc<Store>,
        caches: Arc<Caches>,
        cidr: Ipv4Net,
        node_ports: (u16, u16),
    ) -> Self {
        Self { store, caches, cidr, node_ports }
    }

    /// The address of the `kubernetes` Service: the first of the range.
    pub fn first_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()) + 1)
    }

    /// Fills in what a new or changed Service needs. The returned writes belong into the
    /// transaction that writes it.
    pub async fn allocate(
        &self,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Vec<Write>, Status> {
        let mut writes = self.allocate_ip(service, old)?;
        writes.extend(self.allocate_ports(service, old).await?);
        Ok(writes)
    }

    /// What to write when a Service goes.
    pub async fn release(&self, service: &Value) -> Result<Vec<Write>, Status> {
        let mut writes: Vec<_> = ip_of(service).map(|ip| delete_address(&ip)).into_iter().collect();
        let ports = ports_of(service);
        if !ports.is_empty() {
            let (mut bitmap, revision) = self.read_ports().await?;
            ports.iter().for_each(|port| bitmap.clear(*port));
            writes.push(self.write_ports(&bitmap, revision));
        }
        Ok(writes)
    }

    fn allocate_ip(&self, service: &mut Value, old: Option<&Value>) -> Result<Vec<Write>, Status> {
        let held = old.and_then(ip_of);
        let mut writes = Vec::new();
        if !wants_cluster_ip(service) {
            writes.extend(held.map(|ip| delete_address(&ip)));
            return Ok(writes);
        }
        let asked = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
        if asked == "None" {
            service["spec"]["clusterIPs"] = json!(["None"]);
            return Ok(writes);
        }
        let ip = match asked.as_str() {
            "" => match held {
                Some(ip) => ip,
                None => self.free_ip()?,
            },
            text => self.check_ip(service, text, held)?,
        };
        service["spec"]["clusterIP"] = ip.to_string().into();
        service["spec"]["clusterIPs"] = json!([ip.to_string()]);
        if held != Some(ip) {
            writes.extend(held.map(|ip| delete_address(&ip)));
            writes.push(create_address(&ip, service));
        }
        Ok(writes)
    }

    fn is_taken(&self, ip: &Ipv4Addr) -> bool {
        let addresses = GroupResource::new("networking.k8s.io", "ipaddresses");
        ObjectSource::get(&*self.caches, &addresses, "", &ip.to_string()).is_some()
    }

    fn check_ip(
        &self,
        service: &Value,
        text: &str,
        held: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr, Status> {
        let refuse = |why: String| {
            let message = format!("Invalid value: [{text:?}]: {why}");
            Err(invalid(service, vec![cause("FieldValueInvalid", "spec.clusterIPs", message)]))
        };
        let Ok(ip) = text.parse::<Ipv4Addr>() else {
            return refuse("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into());
        };
        let usable =
            self.cidr.contains(&ip) && ip != self.cidr.network() && ip != self.cidr.broadcast();
        if !usable {
            return refuse(format!(
                "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
                self.cidr
            ));
        }
        if held != Some(ip) && self.is_taken(&ip) {
            return refuse(format!("failed to allocate IP {ip}: provided IP is already allocated"));
        }
        Ok(ip)
    }

    /// A free address. The lower part of the range is left to those who choose their own, as far
    /// as there is room (KEP-3070).
    fn free_ip(&self) -> Result<Ipv4Addr, Status> {
        let network = u32::from(self.cidr.network());
        let size = u32::from(self.cidr.broadcast()) - network;
        let reserved = (size / 16).clamp(16, 256).min(size / 2);
        for _ in 0..RANDOM_TRIES {
            let ip = Ipv4Addr::from(network + rand::random_range(reserved + 1..size));
            if !self.is_taken(&ip) {
                return Ok(ip);
            }
        }
        let in_order =
            (reserved + 1..size).chain(1..=reserved).map(|n| Ipv4Addr::from(network + n));
        in_order
            .into_iter()
            .find(|ip| !self.is_taken(ip))
            .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))
    }

    async fn read_ports(&self) -> Result<(Bitmap, i64), Status> {
        let (first, last) = self.node_ports;
        let Some(kv) = self.store.get(NODE_PORTS_KEY).await? else {
            return Ok((Bitmap::new(first, last), 0));
        };
        let stored: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
        let data = stored["data"].as_str().unwrap_or_default();
        let bitmap = Bitmap::from_base64(first, last, data).ok_or_else(|| {
            Status::internal(format!("{NODE_PORTS_KEY} does not hold a bitmap of ports"))
        })?;
        Ok((bitmap, kv.mod_revision))
    }

    fn write_ports(&self, bitmap: &Bitmap, expected: i64) -> Write {
        let (first, last) = self.node_ports;
        let value = json!({
            "kind": "RangeAllocation", "apiVersion": "v1", "metadata": {},
            "range": format!("{first}-{last}"), "data": bitmap.to_base64(),
        });
        let value = value.to_string().into_bytes();
        Write::Put { key: NODE_PORTS_KEY.to_owned(), value, expected, lease: 0 }
    }

    async fn allocate_ports(
        &self,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Vec<Write>, Status> {
        let held = old.map(ports_of).unwrap_or_default();
        let wants = wants_node_ports(service);
        let wants_health = service["spec"]["type"] == "LoadBalancer"
            && service["spec"]["externalTrafficPolicy"] == "Local";
        if !wants && !wants_health && held.is_empty() && ports_of(service).is_empty() {
            return Ok(Vec::new());
        }
        let (mut bitmap, revision) = self.read_ports().await?;
        let before = bitmap.clone();
        let kept = ports_of(service);
        held.iter().filter(|p| !kept.contains(p)).for_each(|p| bitmap.clear(*p));
        self.take_named(service, &kept, &held, &mut bitmap)?;
        if wants {
            assign_ports(service, &mut bitmap)?;
        }
        if wants_health && service["spec"]["healthCheckNodePort"].as_u64().unwrap_or(0) == 0 {
            let port = bitmap.take_any().ok_or_else(full)?;
            service["spec"]["healthCheckNodePort"] = port.into();
        }
        let changed = bitmap != before;
        Ok(changed.then(|| self.write_ports(&bitmap, revision)).into_iter().collect())
    }

    /// Takes the ports that the Service names itself and does not hold yet.
    fn take_named(
        &self,
        service: &Value,
        named: &[u16],
        held: &[u16],
        bitmap: &mut Bitmap,
    ) -> Result<(), Status> {
        let (first, last) = self.node_ports;
        for port in named.iter().filter(|p| !held.contains(p)) {
            let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
            let at = ports.position(|p| p["nodePort"] == json!(port)).unwrap_or(0);
            let refuse = |why: &str| {
                let field = format!("spec.ports[{at}].nodePort");
                let message = format!("Invalid value: {port}: {why}");
                Err(invalid(service, vec![cause("FieldValueInvalid", &field, message)]))
            };
            if !(first..=last).contains(port) {
                return refuse(&format!(
                    "provided port is not in the valid range. The range of valid ports is {first}-{last}"
                ));
            }
            if !bitmap.take(*port) {
                return refuse("provided port is already allocated");
            }
        }
        Ok(())
    }
}

fn full() -> Status {
    Status::internal("failed to allocate a nodePort: range is full")
}

/// Gives a port to every Service port without one. The same number serves TCP and UDP of the same
/// Service port.
fn assign_ports(service: &mut Value, bitmap: &mut Bitmap) -> Result<(), Status> {
    let mut by_port: Vec<(Value, Value)> = Vec::new();
    for port in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if port["nodePort"].as_u64().unwrap_or(0) == 0 {
            let shared = by_port.iter().find(|(number, _)| *number == port["port"]);
            port["nodePort"] = match shared {
                Some((_, taken)) => taken.clone(),
                None => bitmap.take_any().ok_or_else(full)?.into(),
            };
        }
        by_port.push((port["port"].clone(), port["nodePort"].clone()));
    }
    Ok(())
}

fn address_key(ip: &Ipv4Addr) -> String {
    format!("{ADDRESSES_PREFIX}/{ip}")
}

fn delete_address(ip: &Ipv4Addr) -> Write {
    Write::Delete { key: address_key(ip), expected: ANY }
}

fn create_address(ip: &Ipv4Addr, service: &Value) -> Write {
    let metadata = &service["metadata"];
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": ip.to_string(), "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": crate::clock::now(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "group": "", "resource": "services",
            "namespace": metadata["namespace"], "name": metadata["name"],
        }},
    });
    let value = object.to_string().into_bytes();
    Write::Put { key: address_key(ip), value, expected: 0, lease: 0 }
}
