//! `autoscaling`: one kind in two versions, stored as v2.

use super::row::{RowBuilder, Rows, namespaced};
use crate::convert::autoscaling::{v1_to_v2, v2_to_v1};

fn autoscaler() -> RowBuilder {
    namespaced("HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .in_all()
        .status()
}

pub(super) fn rows() -> Rows {
    Rows::of("autoscaling", "v2", vec![autoscaler()]).and(Rows::of(
        "autoscaling",
        "v1",
        vec![autoscaler().stored_as("autoscaling/v2", v2_to_v1, v1_to_v2)],
    ))
}
