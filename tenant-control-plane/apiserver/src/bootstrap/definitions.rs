//! A custom resource definition that is being deleted takes its objects with it: they are deleted,
//! and when the last one is gone the definition's finalizer is taken off.

use std::sync::Arc;
use std::time::Duration;

use machinery::{GroupResource, ObjectSource, Status};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::ensure;
use crate::api::Api;
use crate::registry::delete::delete_object;
use crate::registry::options::DeleteOptions;
use crate::registry::write::{Part, change};
use crate::strategy::definitions::FINALIZER;

/// How often is looked again while objects with finalizers of their own remain.
const PAUSE: Duration = Duration::from_millis(500);
/// How often is looked in any case.
const ROUND: Duration = Duration::from_secs(30);

/// Runs until the token is cancelled.
pub async fn run(api: Arc<Api>, stop: CancellationToken) {
    let resource = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let Some(cache) = api.caches.resource(&resource) else { return };
    let mut grown = cache.subscribe();
    loop {
        grown.mark_unchanged();
        let mut left = false;
        for definition in ObjectSource::list(&*api.caches, &resource, None) {
            if !is_terminating(&definition) {
                continue;
            }
            match clean(&api, &definition).await {
                Ok(is_clean) => left |= !is_clean,
                Err(error) => {
                    left = true;
                    tracing::warn!(name = %definition["metadata"]["name"], %error, "deleting custom resources failed");
                }
            }
        }
        let pause = if left { PAUSE } else { ROUND };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = grown.changed(), if !left => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn is_terminating(definition: &Value) -> bool {
    let finalizers = definition["metadata"]["finalizers"].as_array();
    !definition["metadata"]["deletionTimestamp"].is_null()
        && finalizers.is_some_and(|f| f.iter().any(|f| f == FINALIZER))
}

/// True when nothing is left.
async fn clean(api: &Arc<Api>, definition: &Value) -> Result<bool, Status> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let resource = GroupResource::new(
        text(&definition["spec"]["group"]),
        text(&definition["spec"]["names"]["plural"]),
    );
    for object in ObjectSource::list(&*api.caches, &resource, None) {
        if object["metadata"]["deletionTimestamp"].is_null() {
            let call = ensure::call(api, &object, "delete")?;
            match delete_object(&call, &DeleteOptions::default()).await {
                Err(status) if status.code != 404 => return Err(status),
                _ => {}
            }
        }
    }
    if !ObjectSource::list(&*api.caches, &resource, None).is_empty() {
        return Ok(false);
    }
    let identity = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": definition["metadata"]["name"]},
    });
    let call = ensure::call(api, &identity, "update")?;
    let released = change(&call, Part::Main, false, |old| {
        let mut new = old.clone();
        if let Some(list) = new["metadata"]["finalizers"].as_array_mut() {
            list.retain(|f| f != FINALIZER);
        }
        Ok(new)
    });
    match released.await {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(true),
    }
}
