//! NodeRestriction: a kubelet changes only its own Node and Lease, and only what concerns pods
//! that run on it. Source: Kubernetes documentation, "Admission Control: NodeRestriction";
//! KEP-279.

use std::collections::BTreeSet;

use machinery::{GroupResource, Status};
use serde_json::{Value, json};

use super::Plugin;
use super::certificates::subject;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::{is_mirror_pod, items, text};

const LEASES: &str = "kube-node-lease";

/// Labels of the `kubernetes.io` domains that a kubelet may set on its Node.
const KUBELET_LABELS: [&str; 10] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
];
const KUBELET_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";

pub(super) struct NodeRestriction;

/// A kubelet's request.
struct Asked<'a> {
    context: &'a Context,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    node: &'a str,
}

impl Plugin for NodeRestriction {
    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        judge(context, attributes, object)
    }

    fn mutate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        judge(context, attributes, Some(object))
    }
}

fn judge(
    context: &Context,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
) -> Result<(), Status> {
    let Some(node) = attributes.user.node_name() else { return Ok(()) };
    let asked = Asked { context, attributes, object, node };
    if node.is_empty() {
        let why = format!("could not determine node from user \"{}\"", attributes.user.name);
        return asked.refuse(&why);
    }
    let resource = (attributes.gvr.group.as_str(), attributes.gvr.resource.as_str());
    match (resource, attributes.subresource) {
        (("", "pods"), "") => asked.pod(),
        (("", "pods"), "status") => asked.pod_status(),
        (("", "pods"), "eviction") => asked.eviction(),
        (("", "pods"), other) => asked.refuse(&format!(
            "unexpected pod subresource \"{other}\", only 'status' and 'eviction' are allowed"
        )),
        (("", "nodes"), _) => asked.own_node(),
        (("", "persistentvolumeclaims"), "status") => asked.claim_status(),
        (("", "persistentvolumeclaims"), _) => asked.refuse("may only update PVC status"),
        (("", "serviceaccounts"), "token") => asked.token(),
        (("coordination.k8s.io", "leases"), _) => asked.lease(),
        (("storage.k8s.io", "csinodes"), _) => asked.own_name("CSINode"),
        (("resource.k8s.io", "resourceslices"), _) => asked.slice(),
        (("certificates.k8s.io", "certificatesigningrequests"), "") => asked.csr(),
        _ => Ok(()),
    }
}

impl Asked<'_> {
    fn refuse(&self, why: &str) -> Result<(), Status> {
        Err(self.attributes.forbidden(self.object, why))
    }

    fn object(&self) -> &Value {
        self.object.unwrap_or(&Value::Null)
    }

    fn old(&self) -> &Value {
        self.attributes.old.unwrap_or(&Value::Null)
    }

    /// A pod of the request's namespace.
    fn stored_pod(&self, name: &str) -> Result<std::sync::Arc<Value>, Status> {
        self.context
            .core("pods", self.attributes.namespace, name)
            .ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), name))
    }

    fn is_here(&self, pod: &Value) -> bool {
        text(&pod["spec"]["nodeName"]) == self.node
    }

    fn pod(&self) -> Result<(), Status> {
        let node = self.node;
        match self.attributes.operation() {
            Operation::Create => self.mirror_pod(),
            Operation::Delete => {
                let here = match self.attributes.old {
                    Some(pod) => self.is_here(pod),
                    None => self.is_here(&*self.stored_pod(self.attributes.name)?),
                };
                match here {
                    true => Ok(()),
                    false => self.refuse(&format!(
                        "node \"{node}\" can only delete pods with spec.nodeName set to itself"
                    )),
                }
            }
            other => self.refuse(&format!(
                "unexpected operation \"{}\", node \"{node}\" can only create and delete mirror \
                 pods",
                other.as_str()
            )),
        }
    }

    fn mirror_pod(&self) -> Result<(), Status> {
        let (pod, node) = (self.object(), self.node);
        if !is_mirror_pod(pod) {
            return self.refuse(&format!(
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"{node}\" \
                 can only create mirror pods"
            ));
        }
        let only = |what: &str| format!("node \"{node}\" can only create pods with {what}");
        if !self.is_here(pod) {
            return self.refuse(&only("spec.nodeName set to itself"));
        }
        let owners: Vec<_> = items(&pod["metadata"]["ownerReferences"]).collect();
        let owner = match owners.as_slice() {
            [one] => *one,
            [] => return self.refuse(&only("an owner reference set to itself")),
            _ => return self.refuse(&only("a single owner reference set to itself")),
        };
        let is_node = text(&owner["apiVersion"]) == "v1"
            && text(&owner["kind"]) == "Node"
            && text(&owner["name"]) == node;
        if !is_node {
            return self.refuse(&only("an owner reference set to itself"));
        }
        if owner["controller"] != true {
            return self.refuse(&only("a controller owner reference set to itself"));
        }
        if owner["blockOwnerDeletion"] == true {
            return self.refuse(&format!(
                "node \"{node}\" must not set blockOwnerDeletion on an owner reference"
            ));
        }
        let Some(stored) = self.context.core("nodes", "", node) else {
            return Err(Status::not_found(&GroupResource::new("", "nodes"), node));
        };
        let (expected, got) = (text(&owner["uid"]), text(&stored["metadata"]["uid"]));
        if expected != got {
            return self
                .refuse(&format!("node {node} UID mismatch: expected {expected} got {got}"));
        }
        match api_reference(&pod["spec"]) {
            Some(resource) => self
                .refuse(&format!("node \"{node}\" can not create pods that reference {resource}")),
            None => Ok(()),
        }
    }

    fn pod_status(&self) -> Result<(), Status> {
        let (old, new, node) = (self.old(), self.object(), self.node);
        if self.attributes.operation() != Operation::Update {
            let name = self.attributes.operation().as_str();
            return self.refuse(&format!("unexpected operation \"{name}\""));
        }
        if !self.is_here(old) {
            return self.refuse(&format!(
                "node \"{node}\" can only update pod status for pods with spec.nodeName set to \
                 itself"
            ));
        }
        if !same(&old["metadata"]["labels"], &new["metadata"]["labels"]) {
            return self
                .refuse(&format!("node \"{node}\" cannot update labels through pod status"));
        }
        for key in ["resourceClaimStatuses", "extendedResourceClaimStatus"] {
            if !same(&old["status"][key], &new["status"][key]) {
                return self.refuse(&format!("node \"{node}\" cannot update status.{key}"));
            }
        }
        Ok(())
    }

    fn eviction(&self) -> Result<(), Status> {
        let name = match self.attributes.name {
            "" => text(&self.object()["metadata"]["name"]),
            name => name,
        };
        if name.is_empty() {
            return self.refuse("could not determine pod from request data");
        }
        match self.is_here(&*self.stored_pod(name)?) {
            true => Ok(()),
            false => self.refuse(&format!(
                "node {} can only evict pods with spec.nodeName set to itself",
                self.node
            )),
        }
    }

    fn own_node(&self) -> Result<(), Status> {
        let (old, new, node) = (self.old(), self.object(), self.node);
        let name = match self.attributes.name {
            "" => text(&new["metadata"]["name"]),
            name => name,
        };
        if name != node {
            return self
                .refuse(&format!("node \"{node}\" is not allowed to modify node \"{name}\""));
        }
        let forbidden = forbidden_labels(&old["metadata"]["labels"], &new["metadata"]["labels"]);
        let labels = forbidden.into_iter().collect::<Vec<_>>().join(", ");
        match self.attributes.operation() {
            Operation::Create if !labels.is_empty() => self.refuse(&format!(
                "node \"{node}\" is not allowed to set the following labels: {labels}"
            )),
            Operation::Update => {
                for (field, old, new) in [
                    ("taints", &old["spec"]["taints"], &new["spec"]["taints"]),
                    (
                        "ownerReferences",
                        &old["metadata"]["ownerReferences"],
                        &new["metadata"]["ownerReferences"],
                    ),
                ] {
                    if !same(old, new) {
                        return self
                            .refuse(&format!("node \"{node}\" is not allowed to modify {field}"));
                    }
                }
                match labels.is_empty() {
                    true => Ok(()),
                    false => self.refuse(&format!("is not allowed to modify labels: {labels}")),
                }
            }
            _ => Ok(()),
        }
    }

    fn claim_status(&self) -> Result<(), Status> {
        let stripped = |claim: &Value| {
            let mut claim = claim.clone();
            for (part, keys) in [
                ("metadata", &["resourceVersion", "managedFields"][..]),
                (
                    "status",
                    &["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"],
                ),
            ] {
                if let Some(map) = claim[part].as_object_mut() {
                    keys.iter().for_each(|key| {
                        map.remove(*key);
                    });
                }
            }
            claim
        };
        if stripped(self.old()) == stripped(self.object()) {
            return Ok(());
        }
        self.refuse(&format!(
            "node \"{}\" is not allowed to update fields other than status.quantity and \
             status.conditions",
            self.node
        ))
    }

    fn token(&self) -> Result<(), Status> {
        if self.attributes.operation() != Operation::Create {
            return Ok(());
        }
        let spec = &self.object()["spec"];
        let reference = &spec["boundObjectRef"];
        let (name, uid) = (text(&reference["name"]), text(&reference["uid"]));
        let is_pod = text(&reference["apiVersion"]) == "v1" && text(&reference["kind"]) == "Pod";
        if !is_pod || name.is_empty() {
            return self.refuse("node requested token not bound to a pod");
        }
        if uid.is_empty() {
            return self.refuse("node requested token with a pod binding without a uid");
        }
        let pod = self.stored_pod(name)?;
        if text(&pod["metadata"]["uid"]) != uid {
            return self.refuse(&format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            ));
        }
        if !self.is_here(&pod) {
            return self
                .refuse("node requested token bound to a pod scheduled on a different node");
        }
        self.audience(spec, &pod)
    }

    /// A node asks only for the audiences that its pods' volumes name.
    fn audience(&self, spec: &Value, pod: &Value) -> Result<(), Status> {
        let audiences: Vec<_> = items(&spec["audiences"]).map(text).collect();
        let audience = match audiences.as_slice() {
            [] => "",
            [one] => one,
            _ => return self.refuse("node may only request 0 or 1 audiences"),
        };
        let projected = items(&pod["spec"]["volumes"])
            .flat_map(|volume| items(&volume["projected"]["sources"]))
            .map(|source| &source["serviceAccountToken"])
            .any(|token| !token.is_null() && text(&token["audience"]) == audience);
        let drivers = items(&pod["spec"]["volumes"]).filter_map(|v| v["csi"]["driver"].as_str());
        let by_driver = drivers.into_iter().any(|driver| {
            let resource = GroupResource::new("storage.k8s.io", "csidrivers");
            self.context.source.get(&resource, "", driver).is_some_and(|driver| {
                items(&driver["spec"]["tokenRequests"]).any(|t| text(&t["audience"]) == audience)
            })
        });
        if projected || by_driver {
            return Ok(());
        }
        let request = machinery::RequestInfo {
            is_resource_request: true,
            verb: "request-serviceaccounts-token-audience".into(),
            version: "v1".into(),
            namespace: self.attributes.namespace.into(),
            resource: audience.into(),
            name: self.attributes.name.into(),
            ..Default::default()
        };
        if self.context.access.allowed(self.attributes.user, &request) {
            return Ok(());
        }
        self.refuse(&format!(
            "audience \"{audience}\" not found in pod spec volume, {} is not authorized to \
             request tokens for this audience",
            self.attributes.user.name
        ))
    }

    fn lease(&self) -> Result<(), Status> {
        if self.attributes.namespace != LEASES {
            return self
                .refuse(&format!("can only access leases in the \"{LEASES}\" system namespace"));
        }
        self.own_name("node lease")
    }

    fn own_name(&self, what: &str) -> Result<(), Status> {
        let name = match self.attributes.operation() {
            Operation::Create => text(&self.object()["metadata"]["name"]),
            _ => self.attributes.name,
        };
        match name == self.node {
            true => Ok(()),
            false => self.refuse(&format!(
                "can only access {what} with the same name as the requesting node"
            )),
        }
    }

    fn slice(&self) -> Result<(), Status> {
        let (slice, verb) = match self.attributes.operation() {
            Operation::Create => (self.object(), "create"),
            Operation::Delete => (self.old(), "delete"),
            _ => return Ok(()),
        };
        match text(&slice["spec"]["nodeName"]) == self.node {
            true => Ok(()),
            false => self.refuse(&format!(
                "can only {verb} ResourceSlice with the same NodeName as the requesting node"
            )),
        }
    }

    fn csr(&self) -> Result<(), Status> {
        let csr = self.object();
        let for_nodes =
            ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
        let creates = self.attributes.operation() == Operation::Create;
        if !creates || !for_nodes.contains(&text(&csr["spec"]["signerName"])) {
            return Ok(());
        }
        let wanted = format!("system:node:{}", self.node);
        match subject(csr) {
            None => self.refuse("unable to parse csr: not a PKCS#10 request"),
            Some(subject) if subject.common_name == wanted => Ok(()),
            Some(_) => self.refuse(&format!("can only create a node CSR with CN={wanted}")),
        }
    }
}

/// Equal, where absent, null and empty are the same.
fn same(a: &Value, b: &Value) -> bool {
    let blank = |v: &Value| match v {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    a == b || (blank(a) && blank(b))
}

/// The labels that differ and that a kubelet may not set.
fn forbidden_labels(old: &Value, new: &Value) -> BTreeSet<String> {
    let keys = [old, new].into_iter().filter_map(Value::as_object).flat_map(|map| map.keys());
    keys.filter(|key| old[key.as_str()] != new[key.as_str()])
        .filter(|key| {
            let domain = key.split_once('/').map_or("", |(domain, _)| domain);
            let within = |parent: &str| {
                domain.strip_suffix(parent).is_some_and(|p| p.is_empty() || p.ends_with('.'))
            };
            let system = within("kubernetes.io") || within("k8s.io");
            let kubelets = KUBELET_LABELS.contains(&key.as_str())
                || key.as_str() == "beta.kubernetes.io/arch"
                || KUBELET_LABEL_DOMAINS.iter().any(|d| within(d));
            within(RESTRICTED_DOMAIN) || (system && !kubelets)
        })
        .cloned()
        .collect()
}

/// The kind of API object that a pod's specification refers to, if any: a mirror pod must be
/// startable without the API server.
fn api_reference(spec: &Value) -> Option<&'static str> {
    if !text(&spec["serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    let volumes = || items(&spec["volumes"]);
    let sources = || volumes().flat_map(|v| items(&v["projected"]["sources"]));
    let containers = || {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|key| items(&spec[key]))
    };
    let env = |key: &str, whole: &str| {
        containers().any(|c| {
            items(&c["env"]).any(|e| !e["valueFrom"][key].is_null())
                || items(&c["envFrom"]).any(|e| !e[whole].is_null())
        })
    };
    let volume =
        |key: &str| volumes().any(|v| !v[key].is_null()) || sources().any(|s| !s[key].is_null());
    let checks = [
        (
            "secrets",
            env("secretKeyRef", "secretRef")
                || volume("secret")
                || items(&spec["imagePullSecrets"]).next().is_some(),
        ),
        ("configmaps", env("configMapKeyRef", "configMapRef") || volume("configMap")),
        ("serviceaccounts", volume("serviceAccountToken")),
        ("clustertrustbundles", volume("clusterTrustBundle")),
        ("persistentvolumeclaims", volume("persistentVolumeClaim") || volume("ephemeral")),
        (
            "resourceclaims",
            spec["resourceClaims"] != json!([]) && !spec["resourceClaims"].is_null(),
        ),
    ];
    checks.into_iter().find_map(|(resource, found)| found.then_some(resource))
}
