//! What a request asks for, parsed once from its method and URL.

use std::fmt;

/// A resource without its version: `deployments.apps`. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// API group, `""` for core.
    pub group: String,
    /// Plural lower-case resource name.
    pub resource: String,
}

impl GroupResource {
    /// A resource of a group.
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_str() {
            "" => f.write_str(&self.resource),
            group => write!(f, "{}.{group}", self.resource),
        }
    }
}

/// A resource of one API version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionResource {
    /// API group, `""` for core.
    pub group: String,
    /// Version, such as `v1`.
    pub version: String,
    /// Plural lower-case resource name.
    pub resource: String,
}

/// A kind of one API version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// API group, `""` for core.
    pub group: String,
    /// Version, such as `v1`.
    pub version: String,
    /// CamelCase kind.
    pub kind: String,
}

impl GroupVersionKind {
    /// `v1` for the core group, `apps/v1` for others.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// Everything that authorization, admission and audit need to know of a request.
///
/// Source: the API server's request-info resolver (Kubernetes documentation, "Authorization
/// Overview: Review your request attributes").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// True when the URL names a resource (`/api/...` or `/apis/...` beyond discovery).
    pub is_resource_request: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or the
    /// lower-case HTTP method when the URL names no resource.
    pub verb: String,
    /// The URL's path, without the query.
    pub path: String,
    /// API group, `""` for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, empty for cluster-scoped requests. For a request on a namespace object, that
    /// namespace's name.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Object name, or empty. For list and watch, the `metadata.name` field selector's value.
    pub name: String,
    /// What follows the subresource (`proxy` paths), or empty.
    pub remainder: String,
    /// The raw `labelSelector` query parameter.
    pub label_selector: String,
    /// The raw `fieldSelector` query parameter.
    pub field_selector: String,
}

impl RequestInfo {
    /// The resource asked for.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group.clone(), self.resource.clone())
    }

    /// `pods/exec` when a subresource is asked for, else `pods`.
    pub fn resource_and_subresource(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            sub => format!("{}/{sub}", self.resource),
        }
    }

    /// True for verbs that change nothing.
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }
}
