//! `coordination.k8s.io`.

use super::row::{Rows, namespaced};
use crate::strategy::generic;

pub(super) fn rows() -> Rows {
    Rows::of(
        "coordination.k8s.io",
        "v1",
        vec![namespaced("Lease", "leases").strategy(generic::lease())],
    )
}
