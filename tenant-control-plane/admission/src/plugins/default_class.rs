//! DefaultStorageClass and DefaultIngressClass: a claim or ingress that names no class gets the
//! one that is marked as default.

use machinery::{GroupResource, Status};
use serde_json::Value;

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::{annotation, child_mut, text};

pub(super) struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn mutate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        claim: &mut Value,
    ) -> Result<(), Status> {
        let creates = attributes.operation() == Operation::Create;
        if !creates || !attributes.is("", "persistentvolumeclaims") {
            return Ok(());
        }
        let named = !claim["spec"]["storageClassName"].is_null()
            || annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some();
        if named {
            return Ok(());
        }
        let resource = GroupResource::new("storage.k8s.io", "storageclasses");
        let marks = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        let class = newest_default(context, &resource, &marks).into_iter().next();
        if let Some(class) = class {
            child_mut(claim, "spec").insert("storageClassName".into(), class.into());
        }
        Ok(())
    }
}

pub(super) struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn mutate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        ingress: &mut Value,
    ) -> Result<(), Status> {
        let group = "networking.k8s.io";
        if !attributes.is(group, "ingresses") || attributes.operation() != Operation::Create {
            return Ok(());
        }
        let named = !ingress["spec"]["ingressClassName"].is_null()
            || annotation(ingress, "kubernetes.io/ingress.class").is_some();
        if named {
            return Ok(());
        }
        let resource = GroupResource::new(group, "ingressclasses");
        let mark = "ingressclass.kubernetes.io/is-default-class";
        let class = newest_default(context, &resource, &[mark]).into_iter().next();
        if let Some(class) = class {
            child_mut(ingress, "spec").insert("ingressClassName".into(), class.into());
        }
        Ok(())
    }
}

/// Names of the classes marked as default, the newest first; of the same age by name.
fn newest_default(context: &Context, resource: &GroupResource, marks: &[&str]) -> Vec<String> {
    let mut classes = context.source.list(resource, None);
    classes.retain(|class| marks.iter().any(|mark| annotation(class, mark) == Some("true")));
    classes.sort_by(|a, b| {
        let key = |class: &Value| text(&class["metadata"]["creationTimestamp"]).to_owned();
        let name = |class: &Value| text(&class["metadata"]["name"]).to_owned();
        key(b).cmp(&key(a)).then_with(|| name(a).cmp(&name(b)))
    });
    classes.iter().map(|class| text(&class["metadata"]["name"]).to_owned()).collect()
}
