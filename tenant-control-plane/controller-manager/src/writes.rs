//! Writes through the API whose answers go straight into the shared cache, so that the next
//! decision already sees them.

use std::sync::Arc;

use component::{Informer, Object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{
    DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
    Request,
};
use kube::core::metadata::PartialObjectMeta;
use serde::Serialize;
use serde_json::Value;

/// The API server's answer.
pub type Result<T> = std::result::Result<T, kube::Error>;

/// The HTTP status of an API error, 0 for anything else.
pub fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// What an error says to people.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The `reason` of an API error, empty for anything else.
pub fn reason(error: &kube::Error) -> &str {
    match error {
        kube::Error::Api(status) => &status.reason,
        _ => "",
    }
}

/// True when the namespace is being deleted, so that nothing can be created in it.
pub fn namespace_is_terminating(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
                || status.message.contains("because it is being terminated")
        }
        _ => false,
    }
}

/// Turns "not there" into `None`.
pub fn ignore_missing<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if code(&error) == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// One kind's write access and cache.
pub struct Writer<K> {
    client: Client,
    cache: Arc<Informer<K>>,
}

impl<K> Clone for Writer<K> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), cache: self.cache.clone() }
    }
}

fn bad_request(error: impl std::error::Error + Send + Sync + 'static) -> kube::Error {
    kube::Error::Service(Box::new(error))
}

impl<K: Object + Serialize> Writer<K> {
    /// A writer whose answers go into `cache`.
    pub fn new(client: Client, cache: Arc<Informer<K>>) -> Self {
        Self { client, cache }
    }

    /// The cache.
    pub fn cache(&self) -> &Informer<K> {
        &self.cache
    }

    fn request(&self, namespace: Option<&str>) -> Request {
        Request::new(K::url_path(&(), namespace))
    }

    fn name(object: &K) -> &str {
        object.meta().name.as_deref().unwrap_or_default()
    }

    async fn send(
        &self,
        request: std::result::Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Arc<K>> {
        let request = request.map_err(bad_request)?;
        let answer = self.client.request::<K>(request).await?;
        Ok(self.cache.observe(answer))
    }

    /// The metadata of an object of any kind as the API server has it now, past every cache.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn live_meta<O: Object>(&self, object: &O) -> Result<Option<ObjectMeta>> {
        let request = Request::new(O::url_path(&(), object.meta().namespace.as_deref()));
        let name = object.meta().name.as_deref().unwrap_or_default();
        let request = request.get_metadata(name, &GetParams::default()).map_err(bad_request)?;
        let answer = self.client.request::<PartialObjectMeta<O>>(request).await;
        Ok(ignore_missing(answer)?.map(|object| object.metadata))
    }

    /// Creates the object in its namespace.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn create(&self, object: &K) -> Result<Arc<K>> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let namespace = object.meta().namespace.as_deref();
        self.send(self.request(namespace).create(&PostParams::default(), body)).await
    }

    /// Replaces the object; fails with a conflict when it changed since it was read.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn replace(&self, object: &K) -> Result<Arc<K>> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = self.request(object.meta().namespace.as_deref());
        self.send(request.replace(Self::name(object), &PostParams::default(), body)).await
    }

    /// Replaces the object's status; fails with a conflict when it changed since it was read.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn replace_status(&self, object: &K) -> Result<Arc<K>> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = self.request(object.meta().namespace.as_deref());
        let params = PostParams::default();
        self.send(request.replace_subresource("status", Self::name(object), &params, body)).await
    }

    /// Merge-patches an object.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn patch(&self, object: &K, patch: Value) -> Result<Arc<K>> {
        let request = self.request(object.meta().namespace.as_deref());
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        self.send(request.patch(Self::name(object), &params, &patch)).await
    }

    /// Patches an object's status: merge, or strategic merge when `strategic`.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn patch_status(&self, object: &K, patch: Value, strategic: bool) -> Result<Arc<K>> {
        let request = self.request(object.meta().namespace.as_deref());
        let patch = if strategic { Patch::Strategic(patch) } else { Patch::Merge(patch) };
        let params = PatchParams::default();
        self.send(request.patch_subresource("status", Self::name(object), &params, &patch)).await
    }

    /// Deletes exactly this object (by uid), in the background. An object that is gone already is a
    /// success.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn delete(&self, object: &K) -> Result<()> {
        self.delete_with(object, None).await
    }

    /// Deletes exactly this object (by uid), with a grace period in seconds.
    ///
    /// # Errors
    /// As the API server answers.
    pub async fn delete_with(&self, object: &K, grace: Option<u32>) -> Result<()> {
        let params = DeleteParams {
            grace_period_seconds: grace,
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: object.meta().uid.clone(),
                resource_version: None,
            }),
            ..Default::default()
        };
        let request = self.request(object.meta().namespace.as_deref());
        let request = request.delete(Self::name(object), &params).map_err(bad_request)?;
        match self.client.request::<Value>(request).await {
            Ok(answer) if answer["kind"] == "Status" => self.cache.observe_deleted(object),
            Ok(answer) => {
                let left: K = serde_json::from_value(answer).map_err(kube::Error::SerdeError)?;
                let meta = left.meta();
                let ends_later = meta.deletion_grace_period_seconds.is_some_and(|s| s > 0)
                    || meta.finalizers.as_ref().is_some_and(|list| !list.is_empty());
                if ends_later {
                    self.cache.observe(left);
                } else {
                    self.cache.observe_deleted(&left);
                }
            }
            Err(error) if code(&error) == 404 => self.cache.observe_deleted(object),
            // The name now belongs to another object.
            Err(error) if code(&error) == 409 && reason(&error) == "Conflict" => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
