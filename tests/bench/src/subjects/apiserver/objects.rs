//! What is stored: pods and ConfigMaps as they occur.

use serde_json::{Value, json};

use super::NAMESPACE;

/// Where a pod's number goes.
pub const INDEX: &str = "########";
/// Where the number of its node goes.
pub const NODE: &str = "@@@@";
/// Where the time of sending goes.
pub const STAMP: &str = "%%%%%%%%%%%%%%%%%%%%";

/// A pod as a Deployment of some operator makes it, bound to a node.
pub fn pod(prefix: &str) -> Value {
    let probe = |path: &str, period: u32| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": period, "timeoutSeconds": 2});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{prefix}-{INDEX}"),
            "namespace": NAMESPACE,
            "labels": {
                "app.kubernetes.io/name": "shop", "app.kubernetes.io/component": "checkout",
                "app.kubernetes.io/part-of": "store", "pod-template-hash": "7d4c9f5b68",
            },
            "annotations": {
                "prometheus.io/scrape": "true", "prometheus.io/port": "8080",
                "shop.example.com/config-hash": "5f2b9c1e7a3d48069b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7d4c9f5b68",
                "uid": "6a1f0f4e-3c53-4b0e-9d0a-0d9a3a9a6f11", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "nodeName": format!("node-{NODE}"),
            "terminationGracePeriodSeconds": 30,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 10001, "fsGroup": 10001},
            "volumes": [
                {"name": "config", "configMap": {"name": "shop"}},
                {"name": "scratch", "emptyDir": {}},
            ],
            "containers": [{
                "name": "shop",
                "image": "registry.example.com/store/shop:v1.24.3",
                "args": ["--listen=:8080", "--config=/etc/shop/config.yaml"],
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "DATABASE_HOST", "value": "database.bench.svc.cluster.local"},
                    {"name": "DATABASE_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}},
                ],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "128Mi"},
                    "limits": {"cpu": "1", "memory": "256Mi"},
                },
                "readinessProbe": probe("/ready", 5),
                "livenessProbe": probe("/live", 15),
                "volumeMounts": [
                    {"name": "config", "mountPath": "/etc/shop", "readOnly": true},
                    {"name": "scratch", "mountPath": "/tmp"},
                ],
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true},
            }],
        },
    })
}

/// The patch with which a kubelet tells a pod's state. `message` is any text.
pub fn status(message: &str) -> Value {
    let since = "2026-01-01T00:00:00Z";
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": since});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({"status": {
        "phase": "Running",
        "message": message,
        "startTime": since,
        "hostIP": "10.0.0.7",
        "conditions": conditions,
        "containerStatuses": [{
            "name": "shop", "ready": true, "started": true, "restartCount": 0,
            "image": "registry.example.com/store/shop:v1.24.3",
            "imageID": "registry.example.com/store/shop@sha256:0b5a1d2c3e4f",
            "state": {"running": {"startedAt": since}},
        }],
    }})
}

/// A ConfigMap with `size` bytes of configuration in ten files.
pub fn config_map(name: &str, size: usize) -> Value {
    let line = "connection.pool.max-idle-seconds = 300  # how long a connection may rest\n";
    let file: String = line.chars().cycle().take(size / 10).collect();
    let data: serde_json::Map<String, Value> =
        (0..10).map(|index| (format!("part-{index}.conf"), file.clone().into())).collect();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": data,
    })
}

/// A ConfigMap of 1 kB that says when it was sent.
pub fn stamped(name: &str, stamp: &str) -> Value {
    let mut object = config_map(name, 1_000);
    object["data"]["sent"] = stamp.into();
    object
}

/// The lease by which a node shows that it lives.
pub fn lease(name: &str, resource_version: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": NAMESPACE, "resourceVersion": resource_version},
        "spec": {
            "holderIdentity": name, "leaseDurationSeconds": 40,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    })
}
