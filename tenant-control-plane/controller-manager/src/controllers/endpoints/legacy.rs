//! Endpoints: the older form of a Service's addresses, one object per Service.

use std::collections::BTreeMap;
use std::sync::Arc;

use component::workqueue::Requeue;
use component::{Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::backends::{Backend, Port, backends, families};
use super::slices::target_reference;
use super::{HEADLESS, is_headless, wake_services};
use crate::context::{Context, Running};
use crate::pods;
use crate::writes::{Writer, code, namespace_is_terminating};

/// Label with the name of who writes the object; mirrored slices are not made of these.
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
/// Says that addresses were left out.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses in one object.
const CAPACITY: usize = 1000;

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let queue = Arc::new(WorkQueue::new());
    let services = wake_services(context, &queue);
    let endpoints = context.informer::<Endpoints>();
    let wake = queue.clone();
    endpoints.on_change(move |change| {
        if change.new.is_none() {
            wake.add(ObjectKey::of(change.latest().as_ref()));
        }
    });
    let controller = Arc::new(Controller {
        services,
        pods: pods::informer(context),
        writer: Writer::new(context.client.clone(), endpoints),
    });
    let workers = context.config.workers.endpoint;
    Ok(Some(context.work("endpoints", queue, workers, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })))
}

struct Controller {
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    writer: Writer<Endpoints>,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let held = self.writer.cache().get(key);
        let Some(service) = self.services.get(key) else {
            let ours =
                held.filter(|e| e.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER));
            if let Some(endpoints) = ours {
                self.writer.delete(&endpoints).await?;
            }
            return Ok(None);
        };
        let spec = service.spec.clone().unwrap_or_default();
        if spec.selector.is_none_or(|selector| selector.is_empty())
            || spec.type_.as_deref() == Some("ExternalName")
        {
            return Ok(None);
        }
        let family = families(&service).into_iter().next().unwrap_or_default();
        let candidates = self.pods.list_namespace(&key.namespace);
        let keep_leaving = spec.publish_not_ready_addresses == Some(true);
        let mut found = backends(&service, &candidates, &family);
        found.retain(|backend| keep_leaving || !backend.terminating);
        let over = found.len() > CAPACITY;
        found.truncate(CAPACITY);
        let wanted = wanted(&service, &found, over);
        let result = match held {
            Some(held) => {
                let same = held.subsets.clone().unwrap_or_default()
                    == wanted.subsets.clone().unwrap_or_default()
                    && held.labels() == wanted.labels()
                    && held.annotations().contains_key(OVER_CAPACITY) == over;
                if same {
                    return Ok(None);
                }
                let mut updated = held.as_ref().clone();
                updated.subsets = wanted.subsets;
                updated.metadata.labels = wanted.metadata.labels;
                updated.metadata.annotations = wanted.metadata.annotations;
                self.writer.replace(&updated).await
            }
            None => self.writer.create(&wanted).await,
        };
        match result {
            Ok(_) => Ok(None),
            Err(error) if namespace_is_terminating(&error) => Ok(None),
            // Deleted meanwhile, or made by somebody else: the cache will say so.
            Err(error) if matches!(code(&error), 404 | 409) => {
                Ok(Some(std::time::Duration::from_millis(100)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn wanted(service: &Service, found: &[Backend], over: bool) -> Endpoints {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = service.annotations().clone();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    if over {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    let subsets = subsets(found);
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..Default::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// One subset per set of ports, ready and not ready addresses apart.
fn subsets(found: &[Backend]) -> Vec<EndpointSubset> {
    let mut by_ports: BTreeMap<&[Port], (Vec<EndpointAddress>, Vec<EndpointAddress>)> =
        BTreeMap::new();
    for backend in found {
        let address = EndpointAddress {
            ip: backend.ip.clone(),
            hostname: backend.hostname.clone(),
            node_name: backend.pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(target_reference(&backend.pod)),
        };
        let (ready, not_ready) = by_ports.entry(&backend.ports).or_default();
        if backend.ready { ready.push(address) } else { not_ready.push(address) }
    }
    let some = |list: Vec<EndpointAddress>| (!list.is_empty()).then_some(list);
    by_ports
        .into_iter()
        .map(|(ports, (ready, not_ready))| EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(not_ready),
            ports: (!ports.is_empty()).then(|| ports.iter().map(endpoint_port).collect()),
        })
        .collect()
}

fn endpoint_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: (!port.name.is_empty()).then(|| port.name.clone()),
        port: port.port,
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::backends::tests::{pod, service};
    use super::*;

    #[test]
    fn ready_and_not_ready_addresses_are_kept_apart() {
        let service = service(json!({}));
        let pods =
            [pod("a", "10.244.0.2", true, json!({})), pod("b", "10.244.0.3", false, json!({}))];
        let made = wanted(&service, &backends(&service, &pods, "IPv4"), false);
        let value = serde_json::to_value(&made).unwrap();
        assert_eq!(value["subsets"][0]["addresses"][0]["ip"], "10.244.0.2");
        assert_eq!(value["subsets"][0]["notReadyAddresses"][0]["targetRef"]["name"], "b");
        assert_eq!(
            value["subsets"][0]["ports"],
            json!([{"name": "http", "port": 8080, "protocol": "TCP"}])
        );
    }
}
