//! `events.k8s.io`: the core group's events in newer clothes, stored as `v1`.

use super::row::{Rows, namespaced};
use crate::convert::events::{core_to_new, new_to_core};
use crate::strategy;

pub(super) fn rows() -> Rows {
    Rows::of(
        "events.k8s.io",
        "v1",
        vec![
            namespaced("Event", "events")
                .short(&["ev"])
                .field("regarding.kind", "/involvedObject/kind")
                .field("regarding.namespace", "/involvedObject/namespace")
                .field("regarding.name", "/involvedObject/name")
                .field("regarding.uid", "/involvedObject/uid")
                .field("regarding.apiVersion", "/involvedObject/apiVersion")
                .field("reason", "/reason")
                .field("reportingController", "/reportingComponent")
                .field("type", "/type")
                .stored_as("v1", core_to_new, new_to_core)
                .strategy(strategy::events::event()),
        ],
    )
}
