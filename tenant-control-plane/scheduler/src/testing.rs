//! Nodes and pods for tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::pod::PodInfo;

fn merge(target: &mut Value, extra: Value) {
    match (target, extra) {
        (Value::Object(target), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, extra) => *target = extra,
    }
}

/// A node with 4 cores, 8 GiB and room for 110 pods.
pub fn node(name: &str, extra: Value) -> Node {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}
    });
    merge(&mut value, extra);
    serde_json::from_value(value).unwrap()
}

/// A pod labelled `app=web` in namespace `ns`.
pub fn pod(name: &str, spec: Value) -> Arc<PodInfo> {
    pod_with(name, json!({"spec": spec}))
}

/// The same with anything changed.
pub fn pod_with(name: &str, extra: Value) -> Arc<PodInfo> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c"}]}
    });
    merge(&mut value, extra);
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(value).unwrap())))
}

/// A cluster of these nodes.
pub fn cluster(nodes: &[Node]) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.put_node(node);
    }
    cluster
}
