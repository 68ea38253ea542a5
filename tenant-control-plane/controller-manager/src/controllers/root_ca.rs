//! Root CA publisher: every namespace has a ConfigMap `kube-root-ca.crt` with the cluster's CA, which
//! the kubelet projects into pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use component::workqueue::Requeue;
use component::{Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::watcher;

use crate::context::{Context, Running, enqueue_changes, together};
use crate::writes::{Writer, code, ignore_missing, namespace_is_terminating};

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";

/// Registers the controller, if there is a CA to publish.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let Some(ca) = context.config.root_ca.clone() else { return Ok(None) };
    let namespaces = context.informer::<Namespace>();
    let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let maps = Arc::new(Informer::new(Api::<ConfigMap>::all(context.manager.client.clone()), only));
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&namespaces, &queue);
    let wake = queue.clone();
    maps.on_change(move |change| {
        let namespace = change.latest().metadata.namespace.clone().unwrap_or_default();
        wake.add(ObjectKey::new("", namespace));
    });
    let writer = Writer::new(context.client.clone(), maps.clone());
    let (shutdown, cache) = (context.shutdown.clone(), maps.clone());
    let workers = context.work("root-ca", queue, 2, move |key| {
        let (writer, namespaces, ca, maps) =
            (writer.clone(), namespaces.clone(), ca.clone(), maps.clone());
        async move {
            maps.wait_synced().await;
            let Some(namespace) = namespaces.get(&key) else { return Ok(None) };
            if super::namespace::is_terminating(&namespace) {
                return Ok(None);
            }
            ensure(&writer, &key.name, &ca).await
        }
    });
    Ok(Some(together(vec![
        Box::pin(async move {
            cache.start(shutdown.clone());
            shutdown.cancelled().await;
        }),
        workers,
    ])))
}

async fn ensure(writer: &Writer<ConfigMap>, namespace: &str, ca: &str) -> anyhow::Result<Requeue> {
    let data = BTreeMap::from([(KEY.to_owned(), ca.to_owned())]);
    if let Some(map) = writer.cache().get(&ObjectKey::new(namespace, NAME)) {
        if map.data.as_ref() != Some(&data) {
            let mut updated = map.as_ref().clone();
            (updated.data, updated.binary_data) = (Some(data), None);
            ignore_missing(writer.replace(&updated).await)?;
        }
        return Ok(None);
    }
    let why = "The certificate authority of this cluster's API server, for clients in pods. \
               Kept up to date by kube-controller-manager.";
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            annotations: Some(BTreeMap::from([(DESCRIPTION.to_owned(), why.to_owned())])),
            ..Default::default()
        },
        data: Some(data),
        ..Default::default()
    };
    match writer.create(&map).await {
        Ok(_) => Ok(None),
        Err(error) if code(&error) == 409 || namespace_is_terminating(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
