//! AlwaysPullImages: an image that a node already has is no proof that the pod may use it.

use machinery::Status;
use serde_json::Value;

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;

pub(super) struct AlwaysPullImages;

impl Plugin for AlwaysPullImages {
    fn mutate(
        &self,
        _context: &Context,
        attributes: &Attributes<'_>,
        pod: &mut Value,
    ) -> Result<(), Status> {
        let concerned =
            attributes.is("", "pods") || attributes.is_sub("", "pods", "ephemeralcontainers");
        let writes = matches!(attributes.operation(), Operation::Create | Operation::Update);
        if !concerned || !writes {
            return Ok(());
        }
        for key in ["initContainers", "containers", "ephemeralContainers"] {
            for container in pod["spec"][key].as_array_mut().into_iter().flatten() {
                container["imagePullPolicy"] = "Always".into();
            }
        }
        Ok(())
    }
}
