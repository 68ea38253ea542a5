//! EndpointSlice: writes the slices of each Service with a selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use component::workqueue::Requeue;
use component::{Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::backends::{Backend, Port, backends, families};
use super::slicing::{slice, to_slice_ports};
use super::{HEADLESS, is_headless, wake_services, zone};
use crate::context::{Context, Running};
use crate::owners;
use crate::pods;
use crate::writes::{Writer, code, namespace_is_terminating};

/// Label with the Service's name.
pub(super) const SERVICE: &str = "kubernetes.io/service-name";
/// Label with the name of who writes the slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Index of slices by namespace and Service.
pub(super) const BY_SERVICE: &str = "service";

/// Keys of [`BY_SERVICE`].
pub(super) fn service_keys(slice: &EndpointSlice) -> Vec<String> {
    let namespace = slice.namespace().unwrap_or_default();
    slice.labels().get(SERVICE).map(|name| format!("{namespace}/{name}")).into_iter().collect()
}

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let queue = Arc::new(WorkQueue::new());
    let services = wake_services(context, &queue);
    let slices = context.informer::<EndpointSlice>();
    slices.add_index(BY_SERVICE, service_keys);
    let wake = queue.clone();
    slices.on_change(move |change| {
        let latest = change.latest();
        if latest.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
            && let Some(name) = latest.labels().get(SERVICE)
        {
            wake.add(ObjectKey::new(latest.namespace().unwrap_or_default(), name));
        }
    });
    let controller = Arc::new(Controller {
        services,
        pods: pods::informer(context),
        nodes: context.informer::<Node>(),
        writer: Writer::new(context.client.clone(), slices),
        capacity: context.config.max_endpoints_per_slice,
    });
    let workers = context.config.workers.endpointslice;
    Ok(Some(context.work("endpointslice", queue, workers, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })))
}

struct Controller {
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    writer: Writer<EndpointSlice>,
    capacity: usize,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<Requeue> {
        let held = self.writer.cache().by_index(BY_SERVICE, &key.to_string());
        let mut held: Vec<_> = held
            .into_iter()
            .filter(|s| s.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER))
            .filter(|s| s.metadata.deletion_timestamp.is_none())
            .map(|s| s.as_ref().clone())
            .collect();
        let service = self.services.get(key).filter(|s| s.metadata.deletion_timestamp.is_none());
        let Some(service) = service else {
            for slice in held {
                self.writer.delete(&slice).await?;
            }
            return Ok(None);
        };
        let spec = service.spec.clone().unwrap_or_default();
        // Without a selector, somebody else writes the endpoints.
        if spec.selector.is_none_or(|selector| selector.is_empty())
            || spec.type_.as_deref() == Some("ExternalName")
        {
            return Ok(None);
        }
        let candidates = self.pods.list_namespace(&key.namespace);
        for family in families(&service) {
            let (ours, others): (Vec<_>, Vec<_>) =
                held.into_iter().partition(|slice| slice.address_type == family);
            held = others;
            let found = backends(&service, &candidates, &family);
            self.reconcile(&service, &family, ours, &found).await?;
        }
        for slice in held {
            self.writer.delete(&slice).await?;
        }
        Ok(None)
    }

    async fn reconcile(
        &self,
        service: &Service,
        family: &str,
        held: Vec<EndpointSlice>,
        found: &[Backend],
    ) -> anyhow::Result<()> {
        let mut wanted: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
        for backend in found {
            let endpoint = self.endpoint(backend);
            wanted.entry(backend.ports.clone()).or_default().push(endpoint);
        }
        if wanted.is_empty() {
            // An empty slice says that there is nothing, as opposed to not known yet.
            let ports = held.first().map(super::slicing::ports_of).unwrap_or_default();
            wanted.insert(ports, Vec::new());
        }
        let none_held = held.is_empty();
        let mut slicing = slice(held, wanted, self.capacity);
        if none_held && slicing.create.is_empty() {
            slicing.create.push((Vec::new(), Vec::new()));
        }
        let labels = labels(service);
        for (ports, endpoints) in slicing.create {
            let fresh = new_slice(service, family, &labels, &ports, endpoints);
            match self.writer.create(&fresh).await {
                Ok(_) => {}
                Err(error) if namespace_is_terminating(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        let stale = slicing.keep.into_iter().filter(|slice| slice.labels() != &labels);
        for mut slice in slicing.update.into_iter().chain(stale) {
            slice.metadata.labels = Some(labels.clone());
            match self.writer.replace(&slice).await {
                Ok(_) => {}
                Err(error) if code(&error) == 404 => self.writer.cache().observe_deleted(&slice),
                Err(error) => return Err(error.into()),
            }
        }
        for slice in slicing.delete {
            self.writer.delete(&slice).await?;
        }
        Ok(())
    }

    fn endpoint(&self, backend: &Backend) -> Endpoint {
        let node = backend.pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        Endpoint {
            addresses: vec![backend.ip.clone()],
            conditions: Some(EndpointConditions {
                ready: Some(backend.ready),
                serving: Some(backend.serving),
                terminating: Some(backend.terminating),
            }),
            hostname: backend.hostname.clone(),
            zone: zone(&self.nodes, node.as_deref()),
            node_name: node,
            target_ref: Some(target_reference(&backend.pod)),
            ..Default::default()
        }
    }
}

pub(super) fn target_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

/// The Service's own labels, and those by which slices are found.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn new_slice(
    service: &Service,
    family: &str,
    labels: &BTreeMap<String, String>,
    ports: &[Port],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owners::controller_reference(service)]),
            ..Default::default()
        },
        address_type: family.to_owned(),
        endpoints,
        ports: to_slice_ports(ports),
    }
}
