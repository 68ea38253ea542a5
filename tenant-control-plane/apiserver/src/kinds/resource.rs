//! `resource.k8s.io`: stored and served; nothing in the cluster allocates devices yet.

use super::row::{Rows, cluster, namespaced};

pub(super) fn rows() -> Rows {
    Rows::of(
        "resource.k8s.io",
        "v1",
        vec![
            cluster("DeviceClass", "deviceclasses"),
            namespaced("ResourceClaim", "resourceclaims").status(),
            namespaced("ResourceClaimTemplate", "resourceclaimtemplates"),
            cluster("ResourceSlice", "resourceslices")
                .field("spec.nodeName", "/spec/nodeName")
                .field("spec.driver", "/spec/driver"),
        ],
    )
}
