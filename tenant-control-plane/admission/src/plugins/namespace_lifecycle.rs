//! NamespaceLifecycle: nothing new in a namespace that is absent or terminating, and the system's
//! own namespaces stay.

use machinery::{GroupResource, Status};
use serde_json::{Value, json};

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::text;

/// Namespaces that are never deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        judge(context, attributes, object)
    }

    fn mutate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        judge(context, attributes, Some(object))
    }
}

fn judge(
    context: &Context,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
) -> Result<(), Status> {
    let operation = attributes.operation();
    let is_namespace = attributes.gvr.group.is_empty() && attributes.gvr.resource == "namespaces";
    if is_namespace {
        let immortal = attributes.subresource.is_empty() && IMMORTAL.contains(&attributes.name);
        if operation == Operation::Delete && immortal {
            return Err(attributes.forbidden(object, "this namespace may not be deleted"));
        }
        return Ok(());
    }
    let review = attributes.gvr.group == "authorization.k8s.io";
    if attributes.namespace.is_empty() || operation == Operation::Delete || review {
        return Ok(());
    }
    let name = attributes.namespace;
    let Some(namespace) = context.core("namespaces", "", name) else {
        return Err(Status::not_found(&GroupResource::new("", "namespaces"), name));
    };
    let terminating = text(&namespace["status"]["phase"]) == "Terminating"
        || !namespace["metadata"]["deletionTimestamp"].is_null();
    if operation != Operation::Create || !terminating {
        return Ok(());
    }
    let why =
        format!("unable to create new content in namespace {name} because it is being terminated");
    let mut status = attributes.forbidden(object, &why);
    if let Some(details) = status.details.as_object_mut() {
        details.insert(
            "causes".into(),
            json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {name} is being terminated"),
                "field": "metadata.namespace",
            }]),
        );
    }
    Err(status)
}
