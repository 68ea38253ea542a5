//! StorageObjectInUseProtection: claims, volumes and attribute classes get the finalizer that keeps
//! them while they are in use; the controller-manager's protection controllers take it off.

use machinery::Status;
use serde_json::Value;

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::{child_mut, items, list_mut};

pub(super) struct InUseProtection;

impl Plugin for InUseProtection {
    fn mutate(
        &self,
        _context: &Context,
        attributes: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        if attributes.operation() != Operation::Create {
            return Ok(());
        }
        let finalizer = if attributes.is("", "persistentvolumeclaims") {
            "kubernetes.io/pvc-protection"
        } else if attributes.is("", "persistentvolumes") {
            "kubernetes.io/pv-protection"
        } else if attributes.is("storage.k8s.io", "volumeattributesclasses") {
            "kubernetes.io/vac-protection"
        } else {
            return Ok(());
        };
        if !items(&object["metadata"]["finalizers"]).any(|f| f == finalizer) {
            child_mut(object, "metadata");
            list_mut(&mut object["metadata"], "finalizers").push(finalizer.into());
        }
        Ok(())
    }
}
