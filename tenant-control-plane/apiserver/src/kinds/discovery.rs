//! `discovery.k8s.io`.

use super::row::{Rows, namespaced};
use crate::strategy::generic;

pub(super) fn rows() -> Rows {
    Rows::of(
        "discovery.k8s.io",
        "v1",
        vec![namespaced("EndpointSlice", "endpointslices").strategy(generic::counted_update())],
    )
}
