//! `policy`.

use super::row::{Rows, namespaced};
use crate::strategy::generic;

pub(super) fn rows() -> Rows {
    Rows::of(
        "policy",
        "v1",
        vec![
            namespaced("PodDisruptionBudget", "poddisruptionbudgets")
                .short(&["pdb"])
                .status()
                .strategy(generic::counted()),
        ],
    )
}
