//! EndpointSlice mirroring: Endpoints that users write by hand, for Services without a selector, are
//! copied to slices, which is what kube-proxy reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use component::workqueue::Requeue;
use component::{Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::backends::Port;
use super::slices::{BY_SERVICE, MANAGED_BY, SERVICE, service_keys};
use super::slicing::{slice, to_slice_ports};
use crate::context::{Context, Running, enqueue_changes};
use crate::owners;
use crate::writes::{Writer, namespace_is_terminating};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label by which users turn mirroring off.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Leader locks of older clients are no addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Most addresses mirrored per subset.
const CAPACITY: usize = 1000;

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let queue = Arc::new(WorkQueue::new());
    let services = context.informer::<Service>();
    let endpoints = context.informer::<Endpoints>();
    let slices = context.informer::<EndpointSlice>();
    slices.add_index(BY_SERVICE, service_keys);
    enqueue_changes(&services, &queue);
    enqueue_changes(&endpoints, &queue);
    let writer = Writer::new(context.client.clone(), slices);
    Ok(Some(context.work("endpointslice-mirroring", queue, 2, move |key| {
        let (services, endpoints, writer) = (services.clone(), endpoints.clone(), writer.clone());
        async move { sync(&services, &endpoints, &writer, &key).await }
    })))
}

fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let selects = spec.and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
    !selects
        && spec.and_then(|s| s.type_.as_deref()) != Some("ExternalName")
        && endpoints.labels().get(SKIP).map(String::as_str) != Some("true")
        && !endpoints.annotations().contains_key(LEADER)
        && !endpoints.labels().contains_key(super::legacy::MANAGED_BY)
        && endpoints.metadata.deletion_timestamp.is_none()
}

async fn sync(
    services: &Informer<Service>,
    endpoints: &Informer<Endpoints>,
    writer: &Writer<EndpointSlice>,
    key: &ObjectKey,
) -> anyhow::Result<Requeue> {
    let by = |slice: &EndpointSlice| slice.labels().get(MANAGED_BY).cloned().unwrap_or_default();
    let all = writer.cache().by_index(BY_SERVICE, &key.to_string());
    // The API server writes the slice of `kubernetes` itself.
    if all.iter().any(|slice| by(slice).is_empty()) {
        return Ok(None);
    }
    let held: Vec<_> = all
        .iter()
        .filter(|slice| by(slice) == MANAGER)
        .map(|slice| slice.as_ref().clone())
        .collect();
    let source = endpoints.get(key).zip(services.get(key));
    let source = source.filter(|(endpoints, service)| is_mirrored(endpoints, service));
    let Some((endpoints, _)) = source else {
        for slice in held {
            writer.delete(&slice).await?;
        }
        return Ok(None);
    };
    for family in ["IPv4", "IPv6"] {
        let ours = held.iter().filter(|slice| slice.address_type == family).cloned().collect();
        let slicing = slice(ours, wanted(&endpoints, family), CAPACITY);
        for (ports, list) in slicing.create {
            let fresh = new_slice(&endpoints, family, &ports, list);
            match writer.create(&fresh).await {
                Ok(_) => {}
                Err(error) if namespace_is_terminating(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        for slice in slicing.update {
            writer.replace(&slice).await?;
        }
        for slice in slicing.delete {
            writer.delete(&slice).await?;
        }
    }
    Ok(None)
}

fn wanted(endpoints: &Endpoints, family: &str) -> BTreeMap<Vec<Port>, Vec<Endpoint>> {
    let mut wanted: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let waiting = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let list: Vec<_> = ready
            .chain(waiting)
            .filter(|(address, _)| address.ip.contains(':') == (family == "IPv6"))
            .take(CAPACITY)
            .map(|(address, ready)| endpoint(address, ready))
            .collect();
        if !list.is_empty() {
            wanted.entry(ports(subset)).or_default().extend(list);
        }
    }
    wanted
}

fn ports(subset: &EndpointSubset) -> Vec<Port> {
    let mut ports: Vec<_> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            port: port.port,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    ports
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: None,
            terminating: None,
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

fn new_slice(
    endpoints: &Endpoints,
    family: &str,
    ports: &[Port],
    list: Vec<Endpoint>,
) -> EndpointSlice {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", endpoints.name_any())),
            namespace: endpoints.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![owners::controller_reference(endpoints)]),
            ..Default::default()
        },
        address_type: family.to_owned(),
        endpoints: list,
        ports: to_slice_ports(ports),
    }
}
