//! Endpoints and EndpointSlices: the addresses behind each Service.
//!
//! Both kinds are computed from the same [`backends`]; kube-proxy and DNS read the slices, older
//! clients the Endpoints.

pub mod backends;
pub mod legacy;
pub mod mirror;
pub mod slices;
mod slicing;

use std::sync::Arc;

use component::{Informer, ObjectKey, WorkQueue, selector};
use k8s_openapi::api::core::v1::{Node, Pod, Service};

use crate::context::{Context, enqueue_changes};
use crate::pods;

/// Says that the Service needs no virtual address.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";

/// True for `clusterIP: None`.
pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Queues Services whose backends may have changed.
fn wake_services(context: &Context, queue: &Arc<WorkQueue<ObjectKey>>) -> Arc<Informer<Service>> {
    let services = context.informer::<Service>();
    enqueue_changes(&services, queue);
    let (wake, candidates) = (queue.clone(), services.clone());
    pods::informer(context).on_change(move |change| {
        let faces = |pod: Option<&Arc<Pod>>| pod.map(|pod| backends::face(pod));
        if faces(change.old) == faces(change.new) {
            return;
        }
        let namespace = change.latest().metadata.namespace.as_deref().unwrap_or_default();
        for service in candidates.list_namespace(namespace) {
            let Some(wanted) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
                continue;
            };
            let sides = [change.old, change.new];
            let selected = sides
                .into_iter()
                .flatten()
                .any(|pod| selector::matches_map(wanted, pod.metadata.labels.as_ref()));
            if selected && !wanted.is_empty() {
                wake.add(ObjectKey::of(service.as_ref()));
            }
        }
    });
    services
}

/// The zone that a node says it is in.
fn zone(nodes: &Informer<Node>, name: Option<&str>) -> Option<String> {
    let node = nodes.get_cluster(name?)?;
    node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
}
