//! ExtendedResourceToleration: a pod that asks for a device tolerates the taint that keeps other
//! pods off the nodes that have it.

use machinery::Status;
use serde_json::{Value, json};

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::{items, list_mut};

pub(super) struct ExtendedResourceToleration;

impl Plugin for ExtendedResourceToleration {
    fn mutate(
        &self,
        _context: &Context,
        attributes: &Attributes<'_>,
        pod: &mut Value,
    ) -> Result<(), Status> {
        let writes = matches!(attributes.operation(), Operation::Create | Operation::Update);
        if !attributes.is("", "pods") || !writes {
            return Ok(());
        }
        let mut wanted: Vec<String> = ["initContainers", "containers"]
            .into_iter()
            .flat_map(|key| items(&pod["spec"][key]))
            .flat_map(|c| c["resources"]["requests"].as_object().into_iter().flatten())
            .map(|(name, _)| name.clone())
            .filter(|name| is_extended(name))
            .collect();
        wanted.sort();
        wanted.dedup();
        for resource in wanted {
            let toleration = json!({"key": resource, "operator": "Exists"});
            let tolerations = list_mut(&mut pod["spec"], "tolerations");
            if !tolerations.contains(&toleration) {
                tolerations.push(toleration);
            }
        }
        Ok(())
    }
}

/// Named by a domain that is not Kubernetes' own.
fn is_extended(resource: &str) -> bool {
    let domain = resource.split_once('/').map_or("", |(domain, _)| domain);
    !domain.is_empty() && domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io")
}
