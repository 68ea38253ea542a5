//! Read access to the API server's own cache, for code that decides about requests.

use std::sync::Arc;

use serde_json::Value;

use crate::request::GroupResource;

/// Objects as the API server's watch cache holds them. Reads are local and never block on the
/// store; they may lag behind it by a few milliseconds.
pub trait ObjectSource: Send + Sync {
    /// One object, or `None`. `namespace` is empty for cluster-scoped resources.
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>>;

    /// All objects of a resource, of one namespace or (with `None`) of all.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>>;

    /// Grows with every change to the resource: what was computed at the same generation is still
    /// true.
    fn generation(&self, resource: &GroupResource) -> u64;
}
