//! Namespaces: empties a namespace that is being deleted, of everything that the API serves, and
//! then lets it go.

use std::sync::Arc;
use std::time::Duration;

use component::WorkQueue;
use component::workqueue::Requeue;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use serde_json::{Value, json};

use crate::context::{Context, Running, enqueue_changes};
use crate::discovery::{self, Discovery, Resource};
use crate::writes::{Writer, code, ignore_missing, message};

mod conditions;

/// The finalizer that this controller takes off.
const FINALIZER: &str = "kubernetes";
/// How soon to look again while something is left, at first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// True once the namespace is being deleted.
pub fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        || namespace.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Terminating")
}

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let namespaces = context.informer::<Namespace>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&namespaces, &queue);
    let writer = Writer::new(context.client.clone(), namespaces);
    let client = context.bulk.clone();
    let workers = context.config.workers.namespace;
    Ok(Some(context.work("namespace", queue, workers, move |key| {
        let (writer, client) = (writer.clone(), client.clone());
        async move {
            match writer.cache().get(&key) {
                Some(namespace) if namespace.metadata.deletion_timestamp.is_some() => {
                    empty(&writer, &client, &namespace).await
                }
                _ => Ok(None),
            }
        }
    })))
}

/// What is still there after a pass.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Remaining {
    /// Groups that could not be listed.
    pub discovery: Vec<String>,
    /// Resources that could not be deleted or listed.
    pub failures: Vec<String>,
    /// Objects left, per resource (`pods.`, `deployments.apps`).
    pub objects: Vec<(String, usize)>,
    /// Objects left that wait for a finalizer, per finalizer.
    pub finalizers: Vec<(String, usize)>,
}

impl Remaining {
    fn is_empty(&self) -> bool {
        self.discovery.is_empty() && self.failures.is_empty() && self.objects.is_empty()
    }

    /// Takes in what [`clear`] said of a resource.
    fn count(&mut self, resource: &Resource, left: Result<Vec<Vec<String>>, kube::Error>) {
        let name = format!("{}.{}", resource.plural, resource.group());
        match left {
            Ok(left) if left.is_empty() => {}
            Ok(left) => {
                for finalizer in left.iter().flatten() {
                    match self.finalizers.iter_mut().find(|(known, _)| known == finalizer) {
                        Some((_, count)) => *count += 1,
                        None => self.finalizers.push((finalizer.clone(), 1)),
                    }
                }
                self.objects.push((name, left.len()));
            }
            Err(error) => self.failures.push(format!("{name}: {}", message(&error))),
        }
    }
}

async fn empty(
    writer: &Writer<Namespace>,
    client: &Client,
    namespace: &Namespace,
) -> anyhow::Result<Requeue> {
    let name = namespace.metadata.name.clone().unwrap_or_default();
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone());
    if !finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER) {
        return Ok(None);
    }
    let found = discovery::discover(client).await?;
    let remaining = delete_content(client, &name, found).await;
    let mut updated = namespace.clone();
    if conditions::note(&mut updated, &remaining) {
        match writer.replace_status(&updated).await {
            Ok(fresh) => updated = fresh.as_ref().clone(),
            Err(error) if code(&error) == 404 => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    if remaining.is_empty() {
        finalize(client, &updated).await?;
        tracing::info!(namespace = %name, "the namespace is empty and gone");
        return Ok(None);
    }
    if !remaining.failures.is_empty() || !remaining.discovery.is_empty() {
        anyhow::bail!("{remaining:?}");
    }
    let since = namespace.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let passed = since.map_or(0, |since| jiff::Timestamp::now().as_second() - since.as_second());
    let passed = Duration::from_secs(u64::try_from(passed).unwrap_or_default());
    Ok(Some((passed / 4).clamp(FIRST_LOOK, LAST_LOOK)))
}

/// Asks for the deletion of everything in the namespace, and counts what is left. Pods go first:
/// what they use (network policies, secrets) stays until the last of them is gone.
async fn delete_content(client: &Client, namespace: &str, found: Discovery) -> Remaining {
    let mut remaining = Remaining::default();
    for (version, why) in found.failed {
        remaining.discovery.push(format!("{version}: {why}"));
    }
    let resources = found.resources.iter().filter(|r| {
        r.namespaced && r.can(&["list"]) && (r.can(&["delete"]) || r.can(&["deletecollection"]))
    });
    let (pods, others): (Vec<_>, Vec<_>) =
        resources.partition(|r| r.group().is_empty() && r.plural == "pods");
    for resources in [pods, others] {
        let clear = |resource| async move { (resource, clear(client, resource, namespace).await) };
        for (resource, left) in futures::future::join_all(resources.into_iter().map(clear)).await {
            remaining.count(resource, left);
        }
        if !remaining.objects.is_empty() || !remaining.failures.is_empty() {
            break;
        }
    }
    remaining
}

/// Deletes a resource's objects. Returns the finalizers of each one left.
async fn clear(
    client: &Client,
    resource: &Resource,
    namespace: &str,
) -> Result<Vec<Vec<String>>, kube::Error> {
    let path = resource.path(Some(namespace));
    let before = list(client, &path).await?;
    if before.is_empty() {
        return Ok(Vec::new());
    }
    let options =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    if resource.can(&["deletecollection"]) {
        delete(client, &path, &options).await?;
    } else {
        for name in before.iter().filter_map(|o| o["metadata"]["name"].as_str()) {
            delete(client, &format!("{path}/{name}"), &options).await?;
        }
    }
    let left = list(client, &path).await?;
    let finalizers = |object: &Value| {
        let list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|f| f.as_str().map(str::to_owned)).collect()
    };
    Ok(left.iter().map(finalizers).collect())
}

async fn list(client: &Client, path: &str) -> Result<Vec<Value>, kube::Error> {
    const METADATA: &str =
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
    let request = http::Request::get(path).header(http::header::ACCEPT, METADATA);
    let request = request.body(Vec::new()).map_err(kube::Error::HttpError)?;
    match ignore_missing(client.request::<Value>(request).await)? {
        Some(mut list) => Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        }),
        None => Ok(Vec::new()),
    }
}

async fn delete(client: &Client, path: &str, options: &Value) -> Result<(), kube::Error> {
    let request = http::Request::delete(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(options.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    ignore_missing(client.request::<Value>(request).await)?;
    Ok(())
}

/// Takes the finalizer off through the `finalize` subresource.
async fn finalize(client: &Client, namespace: &Namespace) -> Result<(), kube::Error> {
    let mut done = namespace.clone();
    if let Some(finalizers) = done.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let request = http::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(&done).map_err(kube::Error::SerdeError)?)
        .map_err(kube::Error::HttpError)?;
    ignore_missing(client.request::<Value>(request).await)?;
    Ok(())
}
