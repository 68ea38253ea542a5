//! RuntimeClass: a pod takes its class's overhead and scheduling rules.

use machinery::{GroupResource, Status};
use serde_json::Value;

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::{child_mut, items, list_mut, text};

pub(super) struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn mutate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        pod: &mut Value,
    ) -> Result<(), Status> {
        if !attributes.is("", "pods") || attributes.operation() != Operation::Create {
            return Ok(());
        }
        let name = text(&pod["spec"]["runtimeClassName"]).to_owned();
        if name.is_empty() {
            return match pod["spec"]["overhead"].as_object() {
                Some(overhead) if !overhead.is_empty() => Err(attributes.forbidden(
                    Some(pod),
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined \
                     Overhead",
                )),
                _ => Ok(()),
            };
        }
        let resource = GroupResource::new("node.k8s.io", "runtimeclasses");
        let Some(class) = context.source.get(&resource, "", &name) else {
            let why = format!("pod rejected: RuntimeClass \"{name}\" not found");
            return Err(attributes.forbidden(Some(pod), &why));
        };
        let overhead = &class["overhead"]["podFixed"];
        let given = &pod["spec"]["overhead"];
        if !given.is_null() && given != overhead {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(attributes.forbidden(Some(pod), why));
        }
        if !overhead.is_null() {
            pod["spec"]["overhead"] = overhead.clone();
        }
        for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
            let selector = child_mut(&mut pod["spec"], "nodeSelector");
            if selector.get(key).is_some_and(|mine| mine != value) {
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; \
                     pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(&selector[key])
                );
                return Err(attributes.forbidden(Some(pod), &why));
            }
            selector.insert(key.clone(), value.clone());
        }
        for toleration in items(&class["scheduling"]["tolerations"]) {
            let tolerations = list_mut(&mut pod["spec"], "tolerations");
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        Ok(())
    }
}
