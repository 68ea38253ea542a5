//! What the controller tells a host's agent, and what the agent reports.
//!
//! ```text
//! controller ──Apply(HostDesired)──►  agent   whole desired state of one host, replaced each time
//!            ◄─stream HostObserved──          whole observed state, after every change
//! ```
//!
//! mTLS with the region's CA: the controller's certificate is for clients only, the agent's for
//! servers only. This crate holds the protocol, the names that both sides derive from a cluster's
//! id, and the paths that a member sees; it makes no connection of its own.
//!
//! **Invariant**: equal [`pb::HostDesired`] values encode to equal bytes (maps are sorted), so a
//! hash says whether something changed.

pub mod paths;

use sha2::{Digest, Sha256};

/// Generated from `proto/host.proto`.
#[allow(missing_docs, clippy::all)]
pub mod pb {
    tonic::include_proto!("marina.host.v1");
}

pub use pb::host_agent_client::HostAgentClient;
pub use pb::host_agent_server::{HostAgent, HostAgentServer};

/// Largest message in either direction, bytes. A cluster takes about 30 KiB.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Identifies everything about a member that needs a restart when it changes. The binary counts
/// too: a rebuilt release is started when the member restarts, not before.
pub fn launch_hash(member: &pb::Member) -> String {
    let mut launch = member.clone();
    launch.health = None;
    let bytes = prost::Message::encode_to_vec(&launch);
    Sha256::digest(&bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Name of a cluster's network namespace, on every host.
pub fn netns_name(cluster_id: &str) -> String {
    format!("marina-{cluster_id}")
}

/// Name of the bridge inside a cluster's network namespace.
pub const BRIDGE: &str = "br0";

/// Start of the provider id of every Node of a cluster.
pub fn provider_id_prefix(cluster_id: &str) -> String {
    format!("marina://{cluster_id}/")
}
