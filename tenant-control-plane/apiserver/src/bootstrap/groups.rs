//! An APIService for every group and version of custom resources, which tells clients that it is
//! served here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use machinery::{GroupResource, ObjectSource, Status};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::ensure;
use crate::api::Api;
use crate::kinds::custom::served_versions;
use crate::registry::delete::delete_object;
use crate::registry::options::DeleteOptions;

/// Says that an APIService comes and goes with what it stands for.
const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
/// How often is looked in any case: an APIService may have been deleted, or a write have failed.
const ROUND: Duration = Duration::from_secs(30);

/// Runs until the token is cancelled.
pub async fn run(api: Arc<Api>, stop: CancellationToken) {
    let resource = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let Some(cache) = api.caches.resource(&resource) else { return };
    let mut grown = cache.subscribe();
    loop {
        grown.mark_unchanged();
        let definitions = ObjectSource::list(&*api.caches, &resource, None);
        if let Err(error) = settle(&api, &served(&definitions)).await {
            tracing::warn!(%error, "keeping the APIServices of custom resources failed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = grown.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(ROUND) => {}
        }
    }
}

/// Groups and versions of the definitions that are served.
fn served(definitions: &[Arc<Value>]) -> BTreeSet<(String, String)> {
    let mut served = BTreeSet::new();
    for definition in definitions {
        let group = definition["spec"]["group"].as_str().unwrap_or_default();
        for version in served_versions(definition) {
            let version = version["name"].as_str().unwrap_or_default();
            served.insert((group.to_owned(), version.to_owned()));
        }
    }
    served
}

async fn settle(api: &Arc<Api>, served: &BTreeSet<(String, String)>) -> Result<(), Status> {
    let resource = GroupResource::new("apiregistration.k8s.io", "apiservices");
    for (group, version) in served {
        ensure::present(api, api_service(group, version)).await?;
    }
    for object in ObjectSource::list(&*api.caches, &resource, None) {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let pair = (text(&object["spec"]["group"]), text(&object["spec"]["version"]));
        if object["metadata"]["labels"][LABEL] != "true" || served.contains(&pair) {
            continue;
        }
        let call = ensure::call(api, &object, "delete")?;
        match delete_object(&call, &DeleteOptions::default()).await {
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

fn api_service(group: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {LABEL: "true"}},
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": 1000, "versionPriority": 100,
        },
    })
}
