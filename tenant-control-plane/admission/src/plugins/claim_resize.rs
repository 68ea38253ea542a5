//! PersistentVolumeClaimResize: a claim grows only when its class allows it.

use machinery::{GroupResource, Quantity, Status};
use serde_json::Value;

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::text;

pub(super) struct ClaimResize;

impl Plugin for ClaimResize {
    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let claims = attributes.is("", "persistentvolumeclaims");
        let (Some(new), Some(old)) = (object.filter(|_| claims), attributes.old) else {
            return Ok(());
        };
        let size = |claim: &Value| {
            Quantity::from_json(&claim["spec"]["resources"]["requests"]["storage"])
                .unwrap_or_default()
        };
        if attributes.operation() != Operation::Update || size(new) <= size(old) {
            return Ok(());
        }
        if text(&old["status"]["phase"]) != "Bound" {
            return Err(
                attributes.forbidden(object, "Only bound persistent volume claims can be expanded")
            );
        }
        let class = match text(&new["spec"]["storageClassName"]) {
            "" => text(&new["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"]),
            class => class,
        };
        let resource = GroupResource::new("storage.k8s.io", "storageclasses");
        let expands = context
            .source
            .get(&resource, "", class)
            .is_some_and(|class| class["allowVolumeExpansion"] == true);
        if expands {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that \
                   provisions the pvc must support resize";
        Err(attributes.forbidden(object, why))
    }
}
