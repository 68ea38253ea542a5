//! What a kubelet may do: a fixed set of rules, and for objects that hold secrets or storage only
//! those that a pod on its node refers to.
//!
//! Source: Kubernetes documentation, "Using Node Authorization"; KEP-4601 (selectors). The walk
//! from an object to the node is made on demand through the cache, so that nothing has to be
//! maintained when pods change.

use std::sync::Arc;

use machinery::{GroupResource, ObjectSource, RequestInfo, UserInfo};
use serde_json::Value;

use super::Decision;
use super::references::{self, Reference};
use super::rules::Rule;

const LEASE_NAMESPACE: &str = "kube-node-lease";

pub(super) struct NodeAuthorizer {
    source: Arc<dyn ObjectSource>,
    rules: Vec<Rule>,
}

impl NodeAuthorizer {
    pub(super) fn new(source: Arc<dyn ObjectSource>) -> Self {
        Self { source, rules: crate::policy::role_rules("system:node") }
    }

    pub(super) fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        let Some(node) = user.node_name() else { return no("") };
        if node.is_empty() {
            return no(&format!("unknown node for user \"{}\"", user.name));
        }
        if request.is_resource_request {
            let resource = (request.group.as_str(), request.resource.as_str());
            match resource {
                ("", "secrets") => return self.read(node, request, Reference::Secret),
                ("", "configmaps") => return self.read(node, request, Reference::ConfigMap),
                ("", "persistentvolumeclaims") => return self.claim(node, request),
                ("", "persistentvolumes") => return self.get(node, request, Reference::Volume),
                ("resource.k8s.io", "resourceclaims") => {
                    return self.get(node, request, Reference::ResourceClaim);
                }
                ("storage.k8s.io", "volumeattachments") => {
                    return self.get(node, request, Reference::Attachment);
                }
                ("", "serviceaccounts") => return self.service_account(node, request),
                ("coordination.k8s.io", "leases") => return lease(node, request),
                ("storage.k8s.io", "csinodes") => return csi_node(node, request),
                ("resource.k8s.io", "resourceslices") => return self.slice(node, request),
                ("", "nodes") => return own_node(node, request),
                ("", "pods") => return self.pod(node, request),
                _ => {}
            }
        }
        match self.rules.iter().any(|rule| rule.allows(request)) {
            true => Decision::Allow { reason: String::new() },
            false => no(""),
        }
    }

    fn read(&self, node: &str, request: &RequestInfo, what: Reference) -> Decision {
        if !matches!(request.verb.as_str(), "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !request.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if request.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, request, what)
    }

    fn get(&self, node: &str, request: &RequestInfo, what: Reference) -> Decision {
        if request.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !request.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(node, request, what)
    }

    fn claim(&self, node: &str, request: &RequestInfo) -> Decision {
        if request.subresource != "status" {
            return self.get(node, request, Reference::Claim);
        }
        match request.verb.as_str() {
            "update" | "patch" => self.related(node, request, Reference::Claim),
            _ => no("can only get/update/patch this type"),
        }
    }

    fn service_account(&self, node: &str, request: &RequestInfo) -> Decision {
        match (request.verb.as_str(), request.subresource.as_str()) {
            ("get", "") => self.read(node, request, Reference::ServiceAccount),
            ("create", "token") if !request.name.is_empty() => {
                self.related(node, request, Reference::ServiceAccount)
            }
            ("create", _) if !request.name.is_empty() => {
                no("can only create token subresource of serviceaccount")
            }
            _ => no("can only create tokens for individual service accounts"),
        }
    }

    fn slice(&self, node: &str, request: &RequestInfo) -> Decision {
        if !request.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match request.verb.as_str() {
            "create" => yes(),
            "get" | "update" | "patch" | "delete" => {
                self.related(node, request, Reference::ResourceSlice)
            }
            "watch" | "list" | "deletecollection" => {
                match selects(&request.field_selector, "spec.nodeName", node) {
                    true => yes(),
                    false => no(
                        "can only list/watch/deletecollection resourceslices with nodeName field \
                         selector",
                    ),
                }
            }
            _ => no("only the following verbs are allowed for a ResourceSlice: get, watch, list, \
                 create, update, patch, delete, deletecollection"),
        }
    }

    fn pod(&self, node: &str, request: &RequestInfo) -> Decision {
        match (request.subresource.as_str(), request.verb.as_str()) {
            ("", "get") => self.get(node, request, Reference::Pod),
            ("", "list" | "watch") => {
                if selects(&request.field_selector, "spec.nodeName", node) {
                    yes()
                } else if !request.name.is_empty() {
                    self.related(node, request, Reference::Pod)
                } else {
                    no("can only list/watch pods with spec.nodeName field selector")
                }
            }
            // NodeRestriction narrows these to mirror pods and to pods of this node.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                yes()
            }
            _ => no(""),
        }
    }

    fn related(&self, node: &str, request: &RequestInfo, what: Reference) -> Decision {
        if request.name.is_empty() {
            return no("No Object name found");
        }
        let source = &*self.source;
        match references::reach(source, what, &request.namespace, &request.name, node) {
            true => yes(),
            false => no(&format!("no relationship found between node '{node}' and this object")),
        }
    }
}

fn own_node(node: &str, request: &RequestInfo) -> Decision {
    match (request.subresource.as_str(), request.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
        ("", "get" | "list" | "watch") => match request.name.as_str() {
            name if name == node => yes(),
            "" => no(&format!("node '{node}' cannot read all nodes, only its own Node object")),
            other => no(&format!("node '{node}' cannot read '{other}', only its own Node object")),
        },
        _ => no(""),
    }
}

fn lease(node: &str, request: &RequestInfo) -> Decision {
    let verb = request.verb.as_str();
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if request.namespace != LEASE_NAMESPACE {
        return no(&format!(
            "can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"
        ));
    }
    if verb != "create" && request.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    yes()
}

fn csi_node(node: &str, request: &RequestInfo) -> Decision {
    let verb = request.verb.as_str();
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !request.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if verb != "create" && request.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    yes()
}

/// True when the field selector requires `field` to be `value`.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    selector.split(',').any(|term| {
        let term = term.trim();
        let pair = term.split_once("==").or_else(|| term.split_once('='));
        pair.is_some_and(|(key, v)| key.trim() == field && v.trim() == value)
    })
}

fn yes() -> Decision {
    Decision::Allow { reason: String::new() }
}

fn no(reason: &str) -> Decision {
    Decision::NoOpinion { reason: reason.to_owned() }
}

/// The cache's name for a core resource.
pub(super) fn core(resource: &str) -> GroupResource {
    GroupResource::new("", resource)
}

/// A field as text, empty when it is absent.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
