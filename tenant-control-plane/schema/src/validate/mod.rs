//! Rules of the API that types alone cannot express, with upstream's texts.
//!
//! Every kind is checked for its metadata, for required texts and for allowed values by the table;
//! what is particular to a kind is a function in the file of its subject. To add rules for a kind,
//! add a line to [`create_rules`] or [`update_rules`]. Names, finalizers and what depends on other
//! objects are the API server's own checks.

mod config;
mod declared;
mod endpoints;
mod faults;
mod fixed;
mod job;
mod labels;
mod meta;
mod node;
mod pod;
mod service;
mod storage;
mod workload;

use std::collections::HashSet;

use machinery::{Cause, GroupVersionKind};
use serde_json::Value;

use crate::place::At;
use crate::table::Schema;
pub(crate) use faults::Faults;

/// Checks an object.
type Rules = fn(&Value, &mut Faults);
/// Checks a change: the new object, the old one.
type ChangeRules = fn(&Value, &Value, &mut Faults);

impl Schema {
    /// What is wrong with an object that is to be created, after defaulting. Empty when nothing is.
    pub fn validate_create(&self, gvk: &GroupVersionKind, object: &Value) -> Vec<Cause> {
        let mut faults = Faults::default();
        self.check(gvk, object, &mut faults);
        finished(faults)
    }

    /// What is wrong with a change from `old` to `new`, both after defaulting. For the object
    /// itself, not for its subresources.
    pub fn validate_update(&self, gvk: &GroupVersionKind, new: &Value, old: &Value) -> Vec<Cause> {
        let mut faults = Faults::default();
        if let Some(rules) = update_rules(&gvk.group, &gvk.kind) {
            rules(new, old, &mut faults);
        }
        // What was stored before a rule existed may stay: only a change is checked again.
        if is_same(gvk, new, old) {
            meta::check(new, &mut faults);
        } else {
            self.check(gvk, new, &mut faults);
        }
        finished(faults)
    }

    fn check(&self, gvk: &GroupVersionKind, object: &Value, faults: &mut Faults) {
        meta::check(object, faults);
        if let Some(rules) = create_rules(&gvk.group, &gvk.kind) {
            rules(object, faults);
        }
        if let Some(ty) = self.type_of(&gvk.group, &gvk.version, &gvk.kind) {
            declared::check(self, ty, object, faults);
        }
    }
}

/// True when nothing changed in what a kind is about.
fn is_same(gvk: &GroupVersionKind, new: &Value, old: &Value) -> bool {
    let parts: &[&str] = match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Endpoints") => &["subsets"],
        ("discovery.k8s.io", "EndpointSlice") => &["endpoints", "ports"],
        _ => &["spec"],
    };
    new.get(parts[0]).is_some() && parts.iter().all(|part| new.get(part) == old.get(part))
}

/// One field may break the same rule in the eyes of several checks.
fn finished(faults: Faults) -> Vec<Cause> {
    let mut causes = faults.into_causes();
    let mut seen = HashSet::new();
    causes.retain(|c| seen.insert((c.field.clone(), c.reason.clone(), c.message.len())));
    let mut required = HashSet::new();
    causes.retain(|c| c.reason != "FieldValueRequired" || required.insert(c.field.clone()));
    causes
}

fn create_rules(group: &str, kind: &str) -> Option<Rules> {
    Some(match (group, kind) {
        ("", "Pod") => pod::pod,
        ("", "Node") => node::node,
        ("", "PodTemplate") => pod::pod_template,
        ("", "ReplicationController") => workload::replication_controller,
        ("apps", "Deployment") => workload::deployment,
        ("apps", "ReplicaSet") => workload::replica_set,
        ("apps", "DaemonSet") => workload::daemon_set,
        ("apps", "StatefulSet") => workload::stateful_set,
        ("batch", "Job") => workload::job,
        ("batch", "CronJob") => workload::cron_job,
        ("autoscaling", "HorizontalPodAutoscaler") => workload::autoscaler,
        ("policy", "PodDisruptionBudget") => workload::disruption_budget,
        ("", "Service") => service::service,
        ("", "Endpoints") => endpoints::endpoints,
        ("discovery.k8s.io", "EndpointSlice") => endpoints::endpoint_slice,
        ("networking.k8s.io", "Ingress") => service::ingress,
        ("networking.k8s.io", "NetworkPolicy") => service::network_policy,
        ("", "PersistentVolume") => storage::volume,
        ("", "PersistentVolumeClaim") => storage::claim,
        ("storage.k8s.io", "StorageClass") => storage::class,
        ("", "ConfigMap") => config::config_map,
        ("", "Secret") => config::secret,
        ("", "ResourceQuota") => config::resource_quota,
        ("", "LimitRange") => config::limit_range,
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => config::role,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => config::role_binding,
        ("coordination.k8s.io", "Lease") => config::lease,
        ("scheduling.k8s.io", "PriorityClass") => config::priority_class,
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        ) => config::webhooks,
        _ => return None,
    })
}

fn update_rules(group: &str, kind: &str) -> Option<ChangeRules> {
    Some(match (group, kind) {
        ("", "Pod") => pod::update,
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => fixed::selector,
        ("apps", "StatefulSet") => fixed::stateful_set,
        ("apps", "ControllerRevision") => fixed::revision,
        ("batch", "Job") => fixed::job,
        ("", "Service") => fixed::service,
        ("", "PersistentVolume") => fixed::volume,
        ("", "PersistentVolumeClaim") => fixed::claim,
        ("", "Secret") => fixed::secret,
        ("", "ConfigMap") => fixed::config_map,
        ("storage.k8s.io", "StorageClass") => fixed::storage_class,
        ("discovery.k8s.io", "EndpointSlice") => fixed::endpoint_slice,
        ("networking.k8s.io", "IngressClass") => fixed::ingress_class,
        ("node.k8s.io", "RuntimeClass") => fixed::runtime_class,
        ("scheduling.k8s.io", "PriorityClass") => fixed::priority_class,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => fixed::role_binding,
        ("resource.k8s.io", "ResourceClaim" | "ResourceClaimTemplate") => fixed::device_claim,
        _ => return None,
    })
}
