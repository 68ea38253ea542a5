//! This node: what all parts of the kubelet share, and the Node object's registration, status
//! and lease.

pub mod allocations;
pub mod heartbeat;
pub mod machine;
pub mod objects;
pub mod ports;
pub mod register;
pub mod status;

use std::sync::Arc;

use component::Informer;
use component::events::{EventType, Recorder, reference};
use cri::Runtime;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Client;

use crate::config::Config;
use crate::runtime::images::Images;
use crate::spec::containers::Kind;
use crate::spec::dns::ClusterDns;
use crate::spec::downward::NodeFacts;
use crate::status::writer::Writer;
use crate::volumes::tokens::Tokens;
use allocations::Allocations;
use objects::Objects;
use ports::Ports;

/// What the parts of one kubelet share.
pub struct Node {
    /// How it was configured.
    pub config: Config,
    /// The API server.
    pub client: Client,
    /// The container runtime.
    pub runtime: Runtime,
    /// The runtime's name, as in `containerd://<id>`.
    pub runtime_name: String,
    /// The pods bound to this node.
    pub pods: Arc<Informer<Pod>>,
    /// Events about pods and the node.
    pub events: Recorder,
    /// Image pulls.
    pub images: Images,
    /// ConfigMaps, Secrets and Services.
    pub objects: Objects,
    /// ServiceAccount tokens.
    pub tokens: Tokens,
    /// What the pods were given.
    pub allocations: Allocations,
    /// Which of them have ports of the node.
    pub ports: Ports,
    /// Writes pods' statuses.
    pub writer: Writer,
    /// The cluster's DNS.
    pub dns: ClusterDns,
    /// Name, addresses and size of this node.
    pub facts: NodeFacts,
    /// Memory of the machine, bytes.
    pub memory: i64,
}

impl Node {
    /// Records an event about a pod.
    pub fn event(&self, pod: &Pod, kind: EventType, reason: &str, message: String) {
        self.events.event_about(pod_reference(pod), kind, reason, message);
    }

    /// Records an event about one container of a pod.
    pub fn container_event(
        &self,
        pod: &Pod,
        at: (Kind, &str),
        kind: EventType,
        reason: &str,
        message: String,
    ) {
        let mut about = pod_reference(pod);
        about.field_path = Some(format!("spec.{}{{{}}}", at.0.field(), at.1));
        self.events.event_about(about, kind, reason, message);
    }
}

/// A pod's reference for events. Without the resource version, so that repetitions are counted
/// on one event.
fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference { resource_version: None, ..reference(pod) }
}
