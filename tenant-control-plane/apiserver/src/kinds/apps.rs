//! `apps`.

use super::row::{Rows, namespaced};
use crate::strategy::workload;

pub(super) fn rows() -> Rows {
    Rows::of(
        "apps",
        "v1",
        vec![
            namespaced("ControllerRevision", "controllerrevisions")
                .strategy(workload::controller_revision()),
            namespaced("DaemonSet", "daemonsets")
                .short(&["ds"])
                .in_all()
                .status()
                .strategy(workload::workload()),
            namespaced("Deployment", "deployments")
                .short(&["deploy"])
                .in_all()
                .status()
                .scale()
                .strategy(workload::workload()),
            namespaced("ReplicaSet", "replicasets")
                .short(&["rs"])
                .in_all()
                .status()
                .scale()
                .field_or("status.replicas", "/status/replicas", "0")
                .strategy(workload::workload()),
            namespaced("StatefulSet", "statefulsets")
                .short(&["sts"])
                .in_all()
                .status()
                .scale()
                .strategy(workload::workload()),
        ],
    )
}
