//! Makes allocations agree with the Services that exist, once at the start of each replica: for
//! stores that another program wrote to, or that were restored from a backup.

use machinery::{GroupResource, ObjectSource, Status};

use super::{ServiceAllocator, create_address, ip_of, ports_of};
use crate::store::Outcome;

const ATTEMPTS: usize = 5;

impl ServiceAllocator {
    /// Repairs. Safe beside other replicas: every write expects what was read.
    pub async fn repair(&self) -> Result<(), Status> {
        let services = ObjectSource::list(&*self.caches, &GroupResource::new("", "services"), None);
        for service in &services {
            if let Some(ip) = ip_of(service).filter(|ip| self.cidr.contains(ip))
                && !self.is_taken(&ip)
            {
                tracing::warn!(%ip, service = %service["metadata"]["name"], "cluster IP was not allocated");
                self.store.commit(vec![create_address(&ip, service)]).await?;
            }
        }
        self.drop_orphans().await?;
        for _ in 0..ATTEMPTS {
            let (bitmap, revision) = self.read_ports().await?;
            let mut wanted = super::Bitmap::new(self.node_ports.0, self.node_ports.1);
            for port in services.iter().flat_map(|s| ports_of(s)) {
                wanted.take(port);
            }
            if wanted == bitmap {
                return Ok(());
            }
            let write = self.write_ports(&wanted, revision);
            if let Outcome::Done(_) = self.store.commit(vec![write]).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Addresses whose Service is gone or has another address.
    async fn drop_orphans(&self) -> Result<(), Status> {
        let resource = GroupResource::new("networking.k8s.io", "ipaddresses");
        for address in ObjectSource::list(&*self.caches, &resource, None) {
            let parent = &address["spec"]["parentRef"];
            let text = |key: &str| parent[key].as_str().unwrap_or_default();
            if text("resource") != "services" {
                continue;
            }
            let Some(Ok(ip)) = address["metadata"]["name"].as_str().map(str::parse) else {
                continue;
            };
            let services = GroupResource::new("", "services");
            let owner =
                ObjectSource::get(&*self.caches, &services, text("namespace"), text("name"));
            if owner.as_deref().and_then(ip_of) != Some(ip) {
                tracing::warn!(%ip, "cluster IP belongs to no Service");
                let revision = address["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                // Only the very address that was judged.
                let expected = revision.parse().unwrap_or(0);
                self.store.delete(&super::address_key(&ip), expected).await?;
            }
        }
        Ok(())
    }
}
