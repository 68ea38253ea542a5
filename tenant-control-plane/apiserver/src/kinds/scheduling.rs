//! `scheduling.k8s.io`.

use super::row::{Rows, cluster};
use crate::strategy::generic;

pub(super) fn rows() -> Rows {
    Rows::of(
        "scheduling.k8s.io",
        "v1",
        vec![
            cluster("PriorityClass", "priorityclasses")
                .short(&["pc"])
                .strategy(generic::priority_class()),
        ],
    )
}
