//! `node.k8s.io`.

use super::row::{Rows, cluster};

pub(super) fn rows() -> Rows {
    Rows::of("node.k8s.io", "v1", vec![cluster("RuntimeClass", "runtimeclasses")])
}
