//! `storage.k8s.io`.

use super::row::{Rows, cluster, namespaced};
use crate::strategy::generic;

pub(super) fn rows() -> Rows {
    Rows::of(
        "storage.k8s.io",
        "v1",
        vec![
            cluster("CSIDriver", "csidrivers"),
            cluster("CSINode", "csinodes"),
            namespaced("CSIStorageCapacity", "csistoragecapacities"),
            cluster("StorageClass", "storageclasses").short(&["sc"]),
            cluster("VolumeAttachment", "volumeattachments").status(),
            cluster("VolumeAttributesClass", "volumeattributesclasses")
                .short(&["vac"])
                .strategy(generic::plain()),
        ],
    )
}
