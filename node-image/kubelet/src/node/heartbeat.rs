//! Keeps the Node object's status true and its Lease fresh.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use component::events::EventType;
use cri::pb;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node as NodeObject, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::machine::{self, Machine};
use super::{Node, register, status};

/// While the node is not Ready it is looked at this often in its first minute, so that it is
/// Ready soon after its network is.
const EAGER: Duration = Duration::from_millis(500);
/// And this often after that.
const PATIENT: Duration = Duration::from_secs(3);
/// One request to the API server.
const REQUEST: Duration = Duration::from_secs(10);
/// Where the lease lives.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Why the runtime says that it is not ready.
fn not_ready(answer: &pb::StatusResponse) -> Option<String> {
    let conditions = answer.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let find = |kind: &str| conditions.iter().find(|c| c.r#type == kind);
    for (kind, what) in [
        ("RuntimeReady", "container runtime is not ready"),
        ("NetworkReady", "container runtime network not ready"),
    ] {
        match find(kind) {
            Some(c) if c.status => {}
            Some(c) => {
                return Some(format!(
                    "{what}: {kind}=false reason:{} message:{}",
                    c.reason, c.message
                ));
            }
            None => return Some(format!("{what}: {kind} is not reported")),
        }
    }
    None
}

/// Measures everything that the status is made of.
pub async fn measure(node: &Node) -> status::Measured {
    let mut measured = status::Measured {
        memory_available: machine::available_memory(),
        disk: machine::disk(&node.config.root_dir).unwrap_or_default(),
        pids: machine::pids(),
        ..Default::default()
    };
    match node.runtime.status(pb::StatusRequest { verbose: false }).await {
        Ok(answer) => {
            measured.not_ready = not_ready(&answer);
            measured.handlers = answer.runtime_handlers;
        }
        Err(error) => measured.not_ready = Some(format!("container runtime is down: {error}")),
    }
    if let Ok(list) = node.runtime.list_images(pb::ListImagesRequest::default()).await {
        measured.images = list.images;
    }
    if let Ok(version) = node.runtime.version(pb::VersionRequest::default()).await {
        let number = version.runtime_version.trim_start_matches('v');
        measured.runtime_version = format!("{}://{number}", version.runtime_name);
    }
    measured
}

fn patch(old: &NodeStatus, new: &NodeStatus) -> serde_json::Value {
    let value = |s: &NodeStatus| serde_json::to_value(s).expect("a status has string keys only");
    let (old, mut new) = (value(old), value(new));
    if let (Some(old), Some(new)) = (old.as_object(), new.as_object_mut()) {
        new.retain(|key, value| old.get(key) != Some(value));
    }
    json!({"status": new})
}

/// Registers the node and keeps its status true until `stop`.
pub async fn run_status(node: Arc<Node>, machine: Machine, ip: IpAddr, stop: CancellationToken) {
    let api: Api<NodeObject> = Api::all(node.client.clone());
    let mut reported: Option<Instant> = None;
    let mut was_ready = None;
    let mut announced = false;
    let began = Instant::now();
    loop {
        let measured = measure(&node).await;
        let ready = measured.not_ready.is_none();
        if was_ready != Some(ready) {
            match &measured.not_ready {
                None => tracing::info!("the node is ready"),
                Some(why) => tracing::warn!("the node is not ready: {why}"),
            }
        }
        let round = update(&node, &api, &machine, ip, measured, reported);
        let outcome = tokio::time::timeout(REQUEST, round).await;
        match outcome {
            Ok(Ok(true)) => {
                reported = Some(Instant::now());
                if was_ready != Some(ready) && announced {
                    let reason = if ready { "NodeReady" } else { "NodeNotReady" };
                    event(
                        &node,
                        reason,
                        format!("Node {} status is now: {reason}", node.facts.name),
                    );
                }
                was_ready = Some(ready);
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::warn!("the node's status could not be written: {error}"),
            Err(_) => tracing::warn!("the node's status could not be written: no answer in time"),
        }
        if reported.is_some() && !announced {
            announced = true;
            event(&node, "Starting", "Starting kubelet.".into());
        }
        let wait = match was_ready {
            Some(true) => node.config.status_update_frequency,
            _ if began.elapsed() < Duration::from_secs(60) => EAGER,
            _ => PATIENT,
        };
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(wait) => {} }
    }
}

fn event(node: &Node, reason: &str, message: String) {
    let about = ObjectReference {
        kind: Some("Node".into()),
        name: Some(node.facts.name.clone()),
        uid: Some(node.facts.name.clone()),
        ..Default::default()
    };
    node.events.event_about(about, EventType::Normal, reason, message);
}

/// One round; true when the API server has the current status.
async fn update(
    node: &Node,
    api: &Api<NodeObject>,
    machine: &Machine,
    ip: IpAddr,
    measured: status::Measured,
    reported: Option<Instant>,
) -> kube::Result<bool> {
    let config = &node.config;
    let now = Timestamp::now();
    let fresh = status::build(config, machine, ip, measured.clone(), &NodeStatus::default(), now);
    let object = if reported.is_none() && config.register_node {
        register::ensure(api, config, machine, fresh).await?
    } else {
        match api.get_opt(&config.node_name).await? {
            Some(found) => found,
            None if config.register_node => register::ensure(api, config, machine, fresh).await?,
            None => return Ok(false),
        }
    };
    let old = object.status.unwrap_or_default();
    let new = status::build(config, machine, ip, measured, &old, now);
    let overdue = reported.is_none_or(|at| at.elapsed() >= config.status_report_frequency);
    if !overdue && status::same(&old, &new) {
        return Ok(true);
    }
    api.patch_status(
        &config.node_name,
        &PatchParams::default(),
        &Patch::Strategic(patch(&old, &new)),
    )
    .await?;
    Ok(true)
}

/// Renews the node's lease four times per lease duration until `stop`.
pub async fn run_lease(node: Arc<Node>, stop: CancellationToken) {
    let api: Api<Lease> = Api::namespaced(node.client.clone(), LEASE_NAMESPACE);
    let seconds = node.config.lease_duration_seconds;
    let period = Duration::from_secs_f64(f64::from(seconds) / 4.0);
    loop {
        let outcome = tokio::time::timeout(REQUEST, renew(&api, &node, seconds)).await;
        let wait = match outcome {
            Ok(Ok(())) => period,
            Ok(Err(error)) => {
                tracing::debug!("the node's lease could not be renewed: {error}");
                Duration::from_secs(1)
            }
            Err(_) => Duration::ZERO,
        };
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(wait) => {} }
    }
}

async fn renew(api: &Api<Lease>, node: &Node, seconds: i32) -> kube::Result<()> {
    let name = &node.facts.name;
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(seconds),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..Default::default()
    };
    let change = Patch::Merge(json!({"spec": spec}));
    match api.patch(name, &PatchParams::default(), &change).await {
        Err(kube::Error::Api(error)) if error.code == 404 => {}
        other => return other.map(drop),
    }
    // The Node owns its lease, so that both go together.
    let nodes: Api<NodeObject> = Api::all(node.client.clone());
    let owner = nodes.get_opt(name).await?.and_then(|n| n.metadata.uid).map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid,
        ..Default::default()
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(LEASE_NAMESPACE.into()),
            owner_references: owner.map(|o| vec![o]),
            ..Default::default()
        },
        spec: Some(spec),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_conditions() {
        let answer = |runtime: bool, network: bool| {
            let condition = |kind: &str, status| pb::RuntimeCondition {
                r#type: kind.into(),
                status,
                ..Default::default()
            };
            let conditions =
                vec![condition("RuntimeReady", runtime), condition("NetworkReady", network)];
            pb::StatusResponse {
                status: Some(pb::RuntimeStatus { conditions }),
                ..Default::default()
            }
        };
        assert!(not_ready(&answer(true, true)).is_none());
        assert!(not_ready(&answer(true, false)).unwrap().contains("network"));
        assert!(not_ready(&answer(false, true)).unwrap().contains("runtime is not ready"));
    }
}
