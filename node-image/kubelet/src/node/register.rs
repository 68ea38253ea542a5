//! Creates this node's Node object, or makes an existing one say what was configured.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node as NodeObject, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::machine::Machine;
use crate::config::Config;

/// Labels that a node gives itself.
pub fn labels(config: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let mut labels = config.node_labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", machine.architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", machine.architecture),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

fn new_node(config: &Config, machine: &Machine, status: NodeStatus) -> NodeObject {
    let taints: Vec<Taint> = config.taints.clone();
    NodeObject {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config, machine)),
            annotations: Some(BTreeMap::from([(
                "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
                "true".to_owned(),
            )])),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            provider_id: config.provider_id.clone(),
            taints: (!taints.is_empty()).then_some(taints),
            ..Default::default()
        }),
        status: Some(status),
    }
}

/// What an existing object lacks: labels of ours with another value, and the provider id. `None`
/// when it lacks nothing. Taints are only set at creation, as upstream does.
fn repair(existing: &NodeObject, config: &Config, machine: &Machine) -> Option<serde_json::Value> {
    let mut wanted = labels(config, machine);
    wanted.retain(|k, v| existing.metadata.labels.as_ref().and_then(|l| l.get(k)) != Some(v));
    let provider =
        existing.spec.as_ref().and_then(|s| s.provider_id.as_deref()).unwrap_or_default();
    let mut patch = serde_json::Map::new();
    if !wanted.is_empty() {
        patch.insert("metadata".into(), json!({"labels": wanted}));
    }
    if let Some(own) = config.provider_id.as_deref().filter(|_| provider.is_empty()) {
        patch.insert("spec".into(), json!({"providerID": own}));
    }
    (!patch.is_empty()).then_some(patch.into())
}

/// Makes sure that the object exists, and answers with it.
///
/// # Errors
/// When the API server refuses or does not answer; the caller tries again.
pub async fn ensure(
    api: &Api<NodeObject>,
    config: &Config,
    machine: &Machine,
    status: NodeStatus,
) -> kube::Result<NodeObject> {
    if let Some(found) = api.get_opt(&config.node_name).await? {
        return match repair(&found, config, machine) {
            Some(patch) => {
                api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
            None => Ok(found),
        };
    }
    let made = api.create(&PostParams::default(), &new_node(config, machine, status)).await?;
    tracing::info!(node.name = config.node_name, "registered the node");
    Ok(made)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn an_existing_node_is_only_completed() {
        let flags = [
            "kubelet",
            "--hostname-override",
            "n",
            "--node-labels",
            "a=b",
            "--provider-id",
            "marina://c/n",
        ];
        let config = Config::load(crate::flags::Flags::parse_from(flags)).unwrap();
        let machine = Machine { architecture: "amd64", ..Default::default() };
        let mut node = new_node(&config, &machine, NodeStatus::default());
        assert!(repair(&node, &config, &machine).is_none());
        node.metadata.labels.as_mut().unwrap().remove("a");
        node.spec.as_mut().unwrap().provider_id = None;
        let patch = repair(&node, &config, &machine).unwrap();
        assert_eq!(
            patch,
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"providerID": "marina://c/n"}})
        );
    }
}
