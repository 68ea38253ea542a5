//! `apiextensions.k8s.io`.

use super::row::{Rows, cluster};
use crate::strategy;

pub(super) fn rows() -> Rows {
    Rows::of(
        "apiextensions.k8s.io",
        "v1",
        vec![
            cluster("CustomResourceDefinition", "customresourcedefinitions")
                .short(&["crd", "crds"])
                .category("api-extensions")
                .status()
                .stored_below("/registry/apiextensions.k8s.io/customresourcedefinitions")
                .strategy(strategy::definitions::definition()),
        ],
    )
}
