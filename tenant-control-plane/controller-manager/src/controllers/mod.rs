//! The list of controllers.

use crate::context::{Context, Running};

pub mod certificates;
pub mod clusterrole_aggregation;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod gc;
pub mod job;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod node_ttl;
pub mod pod_gc;
pub mod protection;
pub mod replicaset;
pub mod resourcequota;
pub mod root_ca;
pub mod service_cidr;
pub mod serviceaccount;
pub mod statefulset;
pub mod taint_eviction;
pub mod token_cleaner;

/// One controller.
pub struct Entry {
    /// Name for `--controllers` and logs.
    pub name: &'static str,
    /// Its ServiceAccount in `kube-system`, to which an API server binds the default role
    /// `system:controller:<account>`. Some controllers share one.
    pub account: &'static str,
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

const fn on(
    name: &'static str,
    account: &'static str,
    start: fn(&Context) -> anyhow::Result<Option<Running>>,
) -> Entry {
    Entry { name, account, default_on: true, start }
}

/// All controllers. To add one: write `controllers/<name>.rs` with a
/// `pub fn start(context: &Context) -> anyhow::Result<Option<Running>>` that registers its queue
/// with the informers it needs (`replicaset` is a good model), add its `pub mod` line above, and
/// duplicate a line here. Names and accounts are upstream's. A controller may do through
/// `context.client` what its account's default role allows and no more: the same programs run under
/// upstream's API server, whose roles are not ours to extend.
pub const CONTROLLERS: &[Entry] = &[
    on("namespace-controller", "namespace-controller", namespace::start),
    on("serviceaccount-controller", "service-account-controller", serviceaccount::start),
    on("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", root_ca::start),
    on("deployment-controller", "deployment-controller", deployment::start),
    on("replicaset-controller", "replicaset-controller", replicaset::start),
    on("replicationcontroller-controller", "replication-controller", replicaset::start_elder),
    on("daemonset-controller", "daemon-set-controller", daemonset::start),
    on("job-controller", "job-controller", job::start),
    on("statefulset-controller", "statefulset-controller", statefulset::start),
    on("cronjob-controller", "cronjob-controller", cronjob::start),
    on("ttl-after-finished-controller", "ttl-after-finished-controller", job::ttl::start),
    on("endpoints-controller", "endpoint-controller", endpoints::legacy::start),
    on("endpointslice-controller", "endpointslice-controller", endpoints::slices::start),
    on(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring-controller",
        endpoints::mirror::start,
    ),
    on("node-ipam-controller", "node-controller", node_ipam::start),
    on("node-lifecycle-controller", "node-controller", node_lifecycle::start),
    on("taint-eviction-controller", "node-controller", taint_eviction::start),
    on("pod-garbage-collector-controller", "pod-garbage-collector", pod_gc::start),
    on("garbage-collector-controller", "generic-garbage-collector", gc::start),
    on(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation-controller",
        clusterrole_aggregation::start,
    ),
    on("resourcequota-controller", "resourcequota-controller", resourcequota::start),
    on("ephemeral-volume-controller", "ephemeral-volume-controller", ephemeral_volume::start),
    on(
        "persistentvolumeclaim-protection-controller",
        "pvc-protection-controller",
        protection::start_claims,
    ),
    on(
        "persistentvolume-protection-controller",
        "pv-protection-controller",
        protection::start_volumes,
    ),
    on(
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        protection::start_classes,
    ),
    on("service-cidr-controller", "service-cidrs-controller", service_cidr::start),
    on("ttl-controller", "ttl-controller", node_ttl::start),
    on("disruption-controller", "disruption-controller", disruption::start),
    on("token-cleaner-controller", "token-cleaner", token_cleaner::start),
    on(
        "certificatesigningrequest-approving-controller",
        "certificate-controller",
        certificates::approve::start,
    ),
    on(
        "certificatesigningrequest-signing-controller",
        "certificate-controller",
        certificates::sign::start,
    ),
    on(
        "certificatesigningrequest-cleaner-controller",
        "certificate-controller",
        certificates::cleanup::start,
    ),
];

#[cfg(test)]
mod tests {
    use auth::bootstrap_policy;

    use super::*;

    #[test]
    fn every_account_has_a_default_role() {
        let policy = bootstrap_policy();
        for entry in CONTROLLERS {
            let role = format!("system:controller:{}", entry.account);
            let bound = policy.iter().any(|object| {
                object["roleRef"]["name"] == role.as_str()
                    && object["subjects"].as_array().into_iter().flatten().any(|subject| {
                        subject["kind"] == "ServiceAccount"
                            && subject["namespace"] == "kube-system"
                            && subject["name"] == entry.account
                    })
            });
            assert!(bound, "{}: no default binding of {role} to its account", entry.name);
        }
    }
}
