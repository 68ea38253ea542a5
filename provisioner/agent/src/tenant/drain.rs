//! Empties a Node before its worker goes: no new pods, and the ones that it has are evicted, as far
//! as disruption budgets allow. How long that may take is decided where workers are removed.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::TenantClient;

/// Does what can be done now. True when the Node has no pods left that could run elsewhere.
pub async fn step(client: &TenantClient, node: &Value) -> anyhow::Result<bool> {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    if node["spec"]["unschedulable"] != true {
        let mut cordoned = node.clone();
        cordoned["spec"]["unschedulable"] = true.into();
        let path = format!("/api/v1/nodes/{name}");
        // Its kubelet writes it too: on a conflict the next step has the newer one.
        let answer = client.call(Method::PUT, &path, Some(&cordoned)).await?;
        if answer.status == StatusCode::CONFLICT {
            return Ok(false);
        }
        answer.ok()?;
    }
    let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{name}");
    let list = client.call(Method::GET, &path, None).await?.ok()?;
    let pods: Vec<&Value> =
        list["items"].as_array().into_iter().flatten().filter(|pod| moves(pod)).collect();
    for pod in pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
        evict(client, pod).await?;
    }
    Ok(pods.is_empty())
}

/// True for a pod that has to be ended before its worker goes.
fn moves(pod: &Value) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let of_node = owners
        .into_iter()
        .flatten()
        .any(|owner| owner["controller"] == true && owner["kind"] == "DaemonSet");
    let is_mirror = !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null();
    let is_over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    !of_node && !is_mirror && !is_over
}

async fn evict(client: &TenantClient, pod: &Value) -> anyhow::Result<()> {
    let metadata = &pod["metadata"];
    let text = |key: &str| metadata[key].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"namespace": namespace, "name": name},
        "deleteOptions": {"preconditions": {"uid": metadata["uid"]}},
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
    let answer = client.call(Method::POST, &path, Some(&eviction)).await?;
    match answer.status {
        // Gone or another by now, or a budget says: not yet.
        StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => Ok(()),
        // One pod that cannot be evicted keeps no other one.
        _ => {
            if let Err(error) = answer.ok() {
                tracing::debug!(pod = name, namespace, %error, "pod cannot be evicted");
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_belong_to_the_node_stay() {
        let owned = |kind: &str| json!([{"kind": kind, "name": "x", "controller": true}]);
        let pod = |owners: Value, phase: &str| json!({"metadata": {"ownerReferences": owners}, "status": {"phase": phase}});
        assert!(moves(&pod(owned("ReplicaSet"), "Running")));
        assert!(moves(&pod(Value::Null, "Pending")));
        assert!(!moves(&pod(owned("DaemonSet"), "Running")));
        assert!(!moves(&pod(owned("Job"), "Succeeded")));
        let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "1"}}});
        assert!(!moves(&mirror));
    }
}
