//! ServiceAccounts: every namespace has one called `default`.

use std::sync::Arc;

use component::workqueue::Requeue;
use component::{ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::{Context, Running, enqueue_changes};
use crate::writes::{Writer, code, namespace_is_terminating};

const NAME: &str = "default";

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let namespaces = context.informer::<Namespace>();
    let accounts = context.informer::<ServiceAccount>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&namespaces, &queue);
    let wake = queue.clone();
    accounts.on_change(move |change| {
        if change.new.is_none() && change.latest().metadata.name.as_deref() == Some(NAME) {
            let namespace = change.latest().metadata.namespace.clone().unwrap_or_default();
            wake.add(ObjectKey::new("", namespace));
        }
    });
    let writer = Writer::new(context.client.clone(), accounts);
    Ok(Some(context.work("serviceaccount", queue, 2, move |key| {
        let (writer, namespaces) = (writer.clone(), namespaces.clone());
        async move {
            let Some(namespace) = namespaces.get(&key) else { return Ok(None) };
            if super::namespace::is_terminating(&namespace) {
                return Ok(None);
            }
            ensure(&writer, &key.name).await
        }
    })))
}

async fn ensure(writer: &Writer<ServiceAccount>, namespace: &str) -> anyhow::Result<Requeue> {
    if writer.cache().get(&ObjectKey::new(namespace, NAME)).is_some() {
        return Ok(None);
    }
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        },
        ..Default::default()
    };
    match writer.create(&account).await {
        Ok(_) => Ok(None),
        Err(error) if code(&error) == 409 || namespace_is_terminating(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
