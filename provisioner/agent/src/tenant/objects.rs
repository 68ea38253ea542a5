//! The objects that Marina keeps inside every tenant.
//!
//! To add one: add it to [`objects`]; it is created where it is missing, and replaced when the
//! text here changes. What a customer changes stays until then.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// An object with the path of its collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Such as `/api/v1/namespaces/kube-system/services`.
    pub collection: String,
    /// The object.
    pub value: Value,
}

/// What the objects depend on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the cluster's DNS Service.
    pub dns_ip: String,
    /// Domain of Services.
    pub dns_domain: String,
}

/// Group of all bootstrap tokens (Kubernetes "Bootstrap tokens": default group).
const BOOTSTRAPPERS: &str = "system:bootstrappers";
const RBAC: &str = "rbac.authorization.k8s.io";
const DNS_IMAGE: &str = "marina.dev/dns:v1";

/// All objects, in the order in which they are applied.
pub fn objects(settings: &Settings) -> Vec<Object> {
    vec![
        binding("marina:node-bootstrapper", "system:node-bootstrapper", BOOTSTRAPPERS),
        binding(
            "marina:node-client-approval",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            BOOTSTRAPPERS,
        ),
        binding(
            "marina:node-client-renewal-approval",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            "system:nodes",
        ),
        dns_account(),
        dns_role(),
        dns_binding(),
        dns_service(settings),
        dns_deployment(settings),
    ]
}

fn rbac(kind_plural: &str, value: Value) -> Object {
    Object { collection: format!("/apis/{RBAC}/v1/{kind_plural}"), value }
}

fn in_kube_system(prefix: &str, plural: &str, value: Value) -> Object {
    Object { collection: format!("{prefix}/namespaces/kube-system/{plural}"), value }
}

fn binding(name: &str, role: &str, group: &str) -> Object {
    rbac(
        "clusterrolebindings",
        json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": group}],
        }),
    )
}

fn dns_account() -> Object {
    in_kube_system(
        "/api/v1",
        "serviceaccounts",
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        }),
    )
}

fn dns_role() -> Object {
    rbac(
        "clusterroles",
        json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole",
            "metadata": {"name": "marina:kube-dns"},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "endpoints", "pods", "namespaces"],
                 "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
                 "verbs": ["get", "list", "watch"]},
            ],
        }),
    )
}

fn dns_binding() -> Object {
    rbac(
        "clusterrolebindings",
        json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding",
            "metadata": {"name": "marina:kube-dns"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "marina:kube-dns"},
            "subjects": [
                {"kind": "ServiceAccount", "name": "kube-dns", "namespace": "kube-system"}],
        }),
    )
}

fn dns_service(settings: &Settings) -> Object {
    in_kube_system(
        "/api/v1",
        "services",
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system",
                "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
            "spec": {
                "clusterIP": settings.dns_ip,
                "selector": {"k8s-app": "kube-dns"},
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                ],
            },
        }),
    )
}

fn dns_deployment(settings: &Settings) -> Object {
    let labels = json!({"k8s-app": "kube-dns"});
    let probe = |path: &str, port: u16| {
        json!({
            "httpGet": {"path": path, "port": port},
            "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 3,
        })
    };
    let container = json!({
        "name": "dns", "image": DNS_IMAGE, "imagePullPolicy": "IfNotPresent",
        "command": ["/cluster-dns"],
        "args": ["--domain", settings.dns_domain, "--listen", "0.0.0.0:53"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": probe("/ready", 8181),
        "livenessProbe": probe("/health", 8080),
        "resources": {
            "requests": {"cpu": "50m", "memory": "32Mi"},
            "limits": {"memory": "170Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        },
    });
    let template = json!({
        "metadata": {"labels": labels},
        "spec": {
            "serviceAccountName": "kube-dns",
            "priorityClassName": "system-cluster-critical",
            // It must not ask itself.
            "dnsPolicy": "Default",
            "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }],
            "containers": [container],
        },
    });
    in_kube_system(
        "/apis/apps/v1",
        "deployments",
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                "template": template,
            },
        }),
    )
}

/// The Secret of a bootstrap token (Kubernetes "Authenticating with bootstrap tokens").
/// `expiration` is RFC 3339.
pub fn bootstrap_token(id: &str, secret: &str, node: &str, expiration: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": token_name(id), "namespace": "kube-system",
            "labels": {TOKEN_LABEL: node},
        },
        "type": "bootstrap.kubernetes.io/token",
        "data": {
            "description": STANDARD.encode(format!("First certificate of node {node}.")),
            "token-id": STANDARD.encode(id),
            "token-secret": STANDARD.encode(secret),
            "expiration": STANDARD.encode(expiration),
            "usage-bootstrap-authentication": STANDARD.encode("true"),
        },
    })
}

/// Label by which Marina's own token Secrets are found; its value is the node's name.
pub const TOKEN_LABEL: &str = "marina.dev/bootstrap-token-of";

/// Name of a token's Secret.
pub fn token_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_belongs_to_its_collection() {
        let settings = Settings { dns_ip: "10.96.0.10".into(), dns_domain: "cluster.local".into() };
        for object in objects(&settings) {
            let version = object.value["apiVersion"].as_str().unwrap();
            let prefix =
                if version == "v1" { "/api/v1".into() } else { format!("/apis/{version}") };
            assert!(object.collection.starts_with(&prefix), "{}", object.collection);
            let plural = object.value["kind"].as_str().unwrap().to_lowercase() + "s";
            assert!(object.collection.ends_with(&plural), "{}", object.collection);
            let namespaced = object.collection.contains("/namespaces/kube-system/");
            assert_eq!(namespaced, object.value["metadata"]["namespace"] == "kube-system");
        }
    }
}
