//! `flowcontrol.apiserver.k8s.io`.

use super::row::{Rows, cluster};
use crate::strategy::generic;

pub(super) fn rows() -> Rows {
    let kind = |kind, plural| cluster(kind, plural).status().strategy(generic::counted());
    Rows::of(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        vec![
            kind("FlowSchema", "flowschemas"),
            kind("PriorityLevelConfiguration", "prioritylevelconfigurations"),
        ],
    )
}
