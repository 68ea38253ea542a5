//! The list of controllers.

use crate::context::{Context, Running};

pub mod certificates;
pub mod clusterrole_aggregation;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod gc;
pub mod job;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod replicaset;
pub mod root_ca;
pub mod serviceaccount;
pub mod statefulset;
pub mod taint_eviction;
pub mod token_cleaner;

/// One controller.
pub struct Entry {
    /// Name for `--controllers` and logs.
    pub name: &'static str,
    /// True when `--controllers=*` includes it.
    pub default_on: bool,
    /// Registers with the caches, and returns the running part, or nothing when the configuration
    /// leaves the controller without work.
    pub start: fn(&Context) -> anyhow::Result<Option<Running>>,
}

impl Entry {
    /// True for the name itself and for upstream's older name without `-controller`.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.name.strip_suffix("-controller") == Some(name)
    }
}

const fn on(name: &'static str, start: fn(&Context) -> anyhow::Result<Option<Running>>) -> Entry {
    Entry { name, default_on: true, start }
}

/// All controllers. To add one: write `controllers/<name>.rs` with a
/// `pub fn start(context: &Context) -> anyhow::Result<Option<Running>>` that registers its queue
/// with the informers it needs (`replicaset` is a good model), add its `pub mod` line above, and
/// duplicate a line here. Names are upstream's.
pub const CONTROLLERS: &[Entry] = &[
    on("namespace-controller", namespace::start),
    on("serviceaccount-controller", serviceaccount::start),
    on("root-ca-certificate-publisher-controller", root_ca::start),
    on("deployment-controller", deployment::start),
    on("replicaset-controller", replicaset::start),
    on("daemonset-controller", daemonset::start),
    on("job-controller", job::start),
    on("statefulset-controller", statefulset::start),
    on("cronjob-controller", cronjob::start),
    on("ttl-after-finished-controller", job::ttl::start),
    on("endpoints-controller", endpoints::legacy::start),
    on("endpointslice-controller", endpoints::slices::start),
    on("endpointslice-mirroring-controller", endpoints::mirror::start),
    on("node-ipam-controller", node_ipam::start),
    on("node-lifecycle-controller", node_lifecycle::start),
    on("taint-eviction-controller", taint_eviction::start),
    on("pod-garbage-collector-controller", pod_gc::start),
    on("garbage-collector-controller", gc::start),
    on("clusterrole-aggregation-controller", clusterrole_aggregation::start),
    on("disruption-controller", disruption::start),
    on("token-cleaner-controller", token_cleaner::start),
    on("certificatesigningrequest-approving-controller", certificates::approve::start),
    on("certificatesigningrequest-signing-controller", certificates::sign::start),
    on("certificatesigningrequest-cleaner-controller", certificates::cleanup::start),
];
