//! The tables that `kubectl get` shows: columns and cells per kind, as upstream prints them.
//!
//! The API server answers a request for `Table` with what this crate computes; kubectl only lays it
//! out. Cells are pure functions of one object and the time: nothing here lists, watches or looks
//! anything up. To add a kind, write its function in the file of its subject and add a line to
//! [`table`]. A kind without a line gets its name and age.

mod cell;
mod cluster;
mod duration;
mod network;
mod pod;
mod policy;
mod storage;
mod workload;

use jiff::Timestamp;
use machinery::GroupVersionKind;
use serde_json::{Value, json};

pub use duration::human_duration;

/// One column, as `meta/v1 TableColumnDefinition` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading, in the case that upstream uses; kubectl prints capitals.
    pub name: &'static str,
    /// OpenAPI type: `string` or `integer`.
    pub kind: &'static str,
    /// OpenAPI format: `name` for the object's name, else empty.
    pub format: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// The definition as it goes into a `Table`.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format,
            "description": "", "priority": self.priority,
        })
    }
}

/// How a kind is printed.
#[derive(Clone, Copy)]
pub struct Printer {
    /// Columns, in order.
    pub columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

impl Printer {
    /// The cells of one object: as many as there are columns.
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.cells)(object, now)
    }
}

/// Conditions of a row (`meta/v1 TableRowCondition`): a pod that has ended is `Completed`.
pub fn row_conditions(gvk: &GroupVersionKind, object: &Value) -> Vec<Value> {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") => pod::conditions(object),
        _ => Vec::new(),
    }
}

pub(crate) const NAME: Column =
    Column { name: "Name", kind: "string", format: "name", priority: 0 };
pub(crate) const AGE: Column = text("Age");

pub(crate) const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 0 }
}

pub(crate) const fn number(name: &'static str) -> Column {
    Column { name, kind: "integer", format: "", priority: 0 }
}

pub(crate) const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 1 }
}

const DEFAULT: Printer = Printer {
    columns: &[NAME, AGE],
    cells: |object, now| vec![cell::name(object), cell::age(object, now)],
};

/// For kinds whose table says when an object was made instead of how old it is.
const CREATED: Printer = Printer {
    columns: &[NAME, text("Created At")],
    cells: |object, _| vec![cell::name(object), cell::text(object, "/metadata/creationTimestamp")],
};

/// Columns, and the function that fills them.
type Entry = (&'static [Column], fn(&Value, Timestamp) -> Vec<Value>);

/// How objects of a kind are printed. The same for all versions of a kind.
pub fn table(gvk: &GroupVersionKind) -> Printer {
    let kind = gvk.kind.as_str();
    let entry = match gvk.group.as_str() {
        "" => core(kind),
        "apps" | "batch" | "autoscaling" => workloads(kind),
        "discovery.k8s.io" | "networking.k8s.io" => networking(kind),
        "storage.k8s.io" | "resource.k8s.io" => storage_kinds(kind),
        group => other(group, kind),
    };
    match entry {
        Some((columns, cells)) => Printer { columns, cells },
        None if matches!(
            kind,
            "Role" | "ClusterRole" | "CustomResourceDefinition" | "LimitRange"
        ) =>
        {
            CREATED
        }
        None => DEFAULT,
    }
}

fn core(kind: &str) -> Option<Entry> {
    Some(match kind {
        "Pod" => (pod::COLUMNS, pod::cells),
        "PodTemplate" => (pod::TEMPLATE_COLUMNS, pod::template),
        "ReplicationController" => (workload::REPLICA_SET, workload::replica_set),
        "Service" => (network::SERVICE, network::service),
        "Endpoints" => (network::ENDPOINTS, network::endpoints),
        "Node" => (cluster::NODE, cluster::node),
        "Namespace" => (cluster::NAMESPACE, cluster::namespace),
        "ConfigMap" => (cluster::CONFIG_MAP, cluster::config_map),
        "Secret" => (cluster::SECRET, cluster::secret),
        "ServiceAccount" => (cluster::SERVICE_ACCOUNT, cluster::service_account),
        "Event" => (cluster::EVENT, cluster::event),
        "ComponentStatus" => (cluster::COMPONENT, cluster::component),
        "PersistentVolume" => (storage::VOLUME, storage::volume),
        "PersistentVolumeClaim" => (storage::CLAIM, storage::claim),
        "ResourceQuota" => (policy::QUOTA, policy::quota),
        _ => return None,
    })
}

fn workloads(kind: &str) -> Option<Entry> {
    Some(match kind {
        "ReplicaSet" => (workload::REPLICA_SET, workload::replica_set),
        "Deployment" => (workload::DEPLOYMENT, workload::deployment),
        "DaemonSet" => (workload::DAEMON_SET, workload::daemon_set),
        "StatefulSet" => (workload::STATEFUL_SET, workload::stateful_set),
        "ControllerRevision" => (workload::REVISION, workload::revision),
        "Job" => (workload::JOB, workload::job),
        "CronJob" => (workload::CRON_JOB, workload::cron_job),
        "HorizontalPodAutoscaler" => (workload::AUTOSCALER, workload::autoscaler),
        "Scale" => (workload::SCALE, workload::scale),
        _ => return None,
    })
}

fn networking(kind: &str) -> Option<Entry> {
    Some(match kind {
        "EndpointSlice" => (network::SLICE, network::slice),
        "Ingress" => (network::INGRESS, network::ingress),
        "IngressClass" => (network::INGRESS_CLASS, network::ingress_class),
        "NetworkPolicy" => (network::POLICY, network::policy),
        "ServiceCIDR" => (network::CIDR, network::cidr),
        "IPAddress" => (network::ADDRESS, network::address),
        _ => return None,
    })
}

fn storage_kinds(kind: &str) -> Option<Entry> {
    Some(match kind {
        "StorageClass" => (storage::CLASS, storage::class),
        "CSIDriver" => (storage::DRIVER, storage::driver),
        "CSINode" => (storage::CSI_NODE, storage::csi_node),
        "VolumeAttachment" => (storage::ATTACHMENT, storage::attachment),
        "VolumeAttributesClass" => (storage::ATTRIBUTES, storage::attributes),
        "ResourceClaim" => (storage::DEVICE_CLAIM, storage::device_claim),
        "ResourceSlice" => (storage::DEVICE_SLICE, storage::device_slice),
        _ => return None,
    })
}

fn other(group: &str, kind: &str) -> Option<Entry> {
    Some(match (group, kind) {
        ("events.k8s.io", "Event") => (cluster::EVENT, cluster::event),
        ("coordination.k8s.io", "Lease") => (cluster::LEASE, cluster::lease),
        ("node.k8s.io", "RuntimeClass") => (cluster::RUNTIME_CLASS, cluster::runtime_class),
        ("scheduling.k8s.io", "PriorityClass") => (cluster::PRIORITY, cluster::priority),
        ("apiregistration.k8s.io", "APIService") => (cluster::API_SERVICE, cluster::api_service),
        ("certificates.k8s.io", "CertificateSigningRequest") => (cluster::CSR, cluster::csr),
        ("policy", "PodDisruptionBudget") => (policy::BUDGET, policy::budget),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            (policy::BINDING, policy::binding)
        }
        ("admissionregistration.k8s.io", kind) => match kind {
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
                (policy::WEBHOOKS, policy::webhooks)
            }
            "ValidatingAdmissionPolicy" => (policy::VALIDATING, policy::validating),
            "MutatingAdmissionPolicy" => (policy::MUTATING, policy::mutating),
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
                (policy::POLICY_BINDING, policy::policy_binding)
            }
            _ => return None,
        },
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => (policy::FLOW, policy::flow),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            (policy::LEVEL, policy::level)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_fills_its_columns_even_when_the_object_is_empty() {
        let kinds = [
            (
                "",
                "Pod PodTemplate ReplicationController Service Endpoints Node Namespace ConfigMap Secret ServiceAccount Event ComponentStatus PersistentVolume PersistentVolumeClaim ResourceQuota LimitRange Unknown",
            ),
            ("apps", "ReplicaSet Deployment DaemonSet StatefulSet ControllerRevision"),
            ("batch", "Job CronJob"),
            ("autoscaling", "HorizontalPodAutoscaler Scale"),
            ("discovery.k8s.io", "EndpointSlice"),
            ("networking.k8s.io", "Ingress IngressClass NetworkPolicy ServiceCIDR IPAddress"),
            ("coordination.k8s.io", "Lease"),
            ("node.k8s.io", "RuntimeClass"),
            ("scheduling.k8s.io", "PriorityClass"),
            ("apiregistration.k8s.io", "APIService"),
            ("certificates.k8s.io", "CertificateSigningRequest"),
            (
                "storage.k8s.io",
                "StorageClass CSIDriver CSINode VolumeAttachment VolumeAttributesClass",
            ),
            ("resource.k8s.io", "ResourceClaim ResourceSlice"),
            ("policy", "PodDisruptionBudget"),
            ("rbac.authorization.k8s.io", "Role ClusterRole RoleBinding ClusterRoleBinding"),
            (
                "admissionregistration.k8s.io",
                "MutatingWebhookConfiguration ValidatingWebhookConfiguration ValidatingAdmissionPolicy MutatingAdmissionPolicy ValidatingAdmissionPolicyBinding",
            ),
            ("flowcontrol.apiserver.k8s.io", "FlowSchema PriorityLevelConfiguration"),
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ];
        for (group, names) in kinds {
            for kind in names.split(' ') {
                let gvk = GroupVersionKind {
                    group: group.into(),
                    version: "v1".into(),
                    kind: kind.into(),
                };
                let printer = table(&gvk);
                for object in
                    [json!({}), json!({"metadata": {"name": "a"}, "spec": {}, "status": {}})]
                {
                    let row = printer.row(&object, Timestamp::UNIX_EPOCH);
                    assert_eq!(row.len(), printer.columns.len(), "{kind}");
                }
            }
        }
    }
}
