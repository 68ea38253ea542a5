//! Values that the API server fills in, as upstream does when it decodes an object.
//!
//! Constant defaults come from the table; the rest is one function per kind. To add a kind, write
//! its function in the file of its subject and add a line to [`defaulter`].

mod core;
mod extension;
mod pod;
mod workloads;

use machinery::GroupVersionKind;
use serde_json::{Map, Value};

use crate::table::{FieldType, Schema, Type};

pub use pod::{image_pull_policy, pod_spec};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

impl Schema {
    /// Normalises the object (see [`Schema::normalize`]) and fills in what the API defaults, in
    /// place. Idempotent. Kinds that the table does not have are left as they are.
    pub fn apply_defaults(&self, gvk: &GroupVersionKind, object: &mut Value) {
        let Some(ty) = self.type_of(&gvk.group, &gvk.version, &gvk.kind) else { return };
        self.normalize(ty, object);
        let Value::Object(fields) = object else { return };
        self.constants(ty, fields);
        if let Some(apply) = defaulter(&gvk.group, &gvk.kind) {
            apply(fields);
        }
    }

    /// Fills in the table's constant defaults, wherever their parent is present.
    fn constants(&self, ty: &Type, fields: &mut Object) {
        for field in &ty.fields {
            let name = field.name.as_ref();
            if let (Some(default), false) = (&field.default, fields.contains_key(name))
                && (is_meaningful(default) || field.nullable)
            {
                fields.insert(name.to_owned(), (**default).clone());
            }
            if let (Some(_), Some(value)) = (field.ty.object(), fields.get_mut(name)) {
                self.constants_in(&field.ty, value);
            }
        }
    }

    fn constants_in(&self, ty: &FieldType, value: &mut Value) {
        match (ty, value) {
            (FieldType::Object(id), Value::Object(fields)) => {
                self.constants(self.resolve(*id), fields);
            }
            (FieldType::List(inner), Value::Array(items)) => {
                items.iter_mut().for_each(|item| self.constants_in(inner, item));
            }
            (FieldType::Map(inner), Value::Object(entries)) => {
                entries.values_mut().for_each(|entry| self.constants_in(inner, entry));
            }
            _ => {}
        }
    }
}

/// A zero default of a value that is omitted when zero says nothing.
fn is_meaningful(default: &Value) -> bool {
    !matches!(default, Value::String(s) if s.is_empty())
        && default.as_i64() != Some(0)
        && *default != Value::Bool(false)
}

/// The function that completes a kind. The same for all versions of a kind.
fn defaulter(group: &str, kind: &str) -> Option<fn(&mut Object)> {
    Some(match (group, kind) {
        ("", "Pod") => pod::pod,
        ("", "PodTemplate") => pod::pod_template_object,
        ("", "ReplicationController") => workloads::replication_controller,
        ("", "Service") => core::service,
        ("", "Endpoints") => core::endpoints,
        ("", "Secret") => core::secret,
        ("", "Namespace") => core::namespace,
        ("", "Node") => core::node,
        ("", "PersistentVolume") => core::persistent_volume,
        ("", "PersistentVolumeClaim") => core::persistent_volume_claim,
        ("", "LimitRange") => core::limit_range,
        ("apps", "Deployment") => workloads::deployment,
        ("apps", "ReplicaSet") => workloads::replica_set,
        ("apps", "DaemonSet") => workloads::daemon_set,
        ("apps", "StatefulSet") => workloads::stateful_set,
        ("batch", "Job") => workloads::job,
        ("batch", "CronJob") => workloads::cron_job,
        ("autoscaling", "HorizontalPodAutoscaler") => workloads::horizontal_pod_autoscaler,
        ("networking.k8s.io", "NetworkPolicy") => extension::network_policy,
        ("networking.k8s.io", "IngressClass") => extension::ingress_class,
        ("discovery.k8s.io", "EndpointSlice") => core::endpoint_slice,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            extension::role_binding
        }
        ("storage.k8s.io", "StorageClass") => extension::storage_class,
        ("storage.k8s.io", "CSIDriver") => extension::csi_driver,
        ("scheduling.k8s.io", "PriorityClass") => extension::priority_class,
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
            extension::mutating_webhooks
        }
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            extension::validating_webhooks
        }
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy",
        ) => extension::admission_policy,
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => extension::admission_policy_binding,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            extension::custom_resource_definition
        }
        ("apiregistration.k8s.io", "APIService") => extension::api_service,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => extension::flow_schema,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => extension::priority_level,
        ("authentication.k8s.io", "TokenRequest") => extension::token_request,
        ("resource.k8s.io", "ResourceClaim") => extension::resource_claim,
        ("resource.k8s.io", "ResourceClaimTemplate") => extension::resource_claim_template,
        _ => return None,
    })
}

/// Sets a field unless it is there.
pub(crate) fn or_set(fields: &mut Object, name: &str, value: impl Into<Value>) {
    if !fields.contains_key(name) {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Sets a field that counts as absent when it is the empty string or zero.
pub(crate) fn or_set_zero(fields: &mut Object, name: &str, value: impl Into<Value>) {
    let is_zero = fields.get(name).is_none_or(|v| v == "" || v.as_i64() == Some(0));
    if is_zero {
        fields.insert(name.to_owned(), value.into());
    }
}

/// The object below a field, if there is one.
pub(crate) fn child<'a>(fields: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    fields.get_mut(name)?.as_object_mut()
}

/// The object below a field, made when absent. `None` when something else is there.
pub(crate) fn made<'a>(fields: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    fields.entry(name).or_insert_with(|| Value::Object(Object::new())).as_object_mut()
}

/// The objects of a list.
pub(crate) fn each<'a>(fields: &'a mut Object, name: &str) -> impl Iterator<Item = &'a mut Object> {
    fields
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// A string field, empty when absent.
pub(crate) fn text<'a>(fields: &'a Object, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}
