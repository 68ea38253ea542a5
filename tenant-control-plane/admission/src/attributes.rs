//! What a plugin knows of a request.

use machinery::{GroupResource, GroupVersionResource, RequestInfo, Status, UserInfo};
use serde_json::Value;

/// What a write does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Stores a new object.
    Create,
    /// Changes a stored one.
    Update,
    /// Removes one.
    Delete,
    /// Opens a connection (`exec`, `attach`, `portforward`, `proxy`).
    Connect,
}

impl Operation {
    /// The name in upstream's messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// A request at the point of admission.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks (after impersonation).
    pub user: &'a UserInfo,
    /// The request's verb: `create`, `update`, `patch`, `delete`, `deletecollection`, or for
    /// connections `get` or `create`.
    pub verb: &'a str,
    /// The resource asked for.
    pub gvr: &'a GroupVersionResource,
    /// The kind of the body (`Pod`; for `pods/eviction` `Eviction`).
    pub kind: &'a str,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The namespace, empty for cluster-scoped requests. For a namespace object, empty or its
    /// name.
    pub namespace: &'a str,
    /// The object's name; empty when it is still to be generated.
    pub name: &'a str,
    /// The stored object of an update or delete.
    pub old: Option<&'a Value>,
    /// Nothing will be stored.
    pub dry_run: bool,
}

impl Attributes<'_> {
    /// What the request does. A patch or update of an object that does not exist creates it.
    pub fn operation(&self) -> Operation {
        if matches!(self.subresource, "exec" | "attach" | "portforward" | "proxy") {
            return Operation::Connect;
        }
        match self.verb {
            "delete" | "deletecollection" => Operation::Delete,
            "update" | "patch" if self.old.is_some() => Operation::Update,
            _ => Operation::Create,
        }
    }

    /// True when the request is for this resource itself, not for a subresource.
    pub(crate) fn is(&self, group: &str, resource: &str) -> bool {
        self.is_sub(group, resource, "")
    }

    /// True when the request is for this subresource.
    pub(crate) fn is_sub(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.gvr.group == group && self.gvr.resource == resource && self.subresource == subresource
    }

    /// The resource without its version.
    pub(crate) fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.gvr.group.clone(), self.gvr.resource.clone())
    }

    /// 403 for this request. `object` gives the name when the request has none yet.
    pub(crate) fn forbidden(&self, object: Option<&Value>, why: &str) -> Status {
        let from_object = |key: &str| {
            object.and_then(|o| o["metadata"][key].as_str()).filter(|name| !name.is_empty())
        };
        let name = match self.name {
            "" => from_object("name").or_else(|| from_object("generateName")).unwrap_or("Unknown"),
            name => name,
        };
        Status::forbidden(&self.group_resource(), name, why)
    }
}

/// Asks the authorizer: some plugins allow more to users with further permissions.
pub trait AccessCheck: Send + Sync {
    /// True when the user may do what the request describes.
    fn allowed(&self, user: &UserInfo, request: &RequestInfo) -> bool;
}

impl<F: Fn(&UserInfo, &RequestInfo) -> bool + Send + Sync> AccessCheck for F {
    fn allowed(&self, user: &UserInfo, request: &RequestInfo) -> bool {
        self(user, request)
    }
}
