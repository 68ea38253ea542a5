//! The types that openraft is instantiated with.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{Snapshot, SnapshotMeta};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::state_machine::SnapshotData;
use crate::storage::record::Position;

openraft::declare_raft_types!(
    /// Members have 64-bit ids, terms elect at most one leader each, and a command is an encoded
    /// batch of requests whose outcome reaches its caller through [`crate::machine::waiters`].
    pub TypeConfig:
        D = Command,
        R = (),
        NodeId = u64,
        Node = PeerNode,
        LeaderId = LeaderId<Self::Term, Self::NodeId>,
);

pub(super) type Clid = openraft::vote::leader_id_std::CommittedLeaderId<u64>;
pub(super) type LogId = openraft::LogId<Clid>;
pub(super) type Vote = openraft::Vote<LeaderId<u64, u64>>;
pub(super) type Entry = <TypeConfig as openraft::RaftTypeConfig>::Entry;
pub(super) type Membership = openraft::Membership<u64, PeerNode>;
pub(super) type StoredMembership = openraft::StoredMembership<Clid, u64, PeerNode>;
pub(super) type RaftSnapshot = Snapshot<Clid, u64, PeerNode, SnapshotData>;
pub(super) type RaftSnapshotMeta = SnapshotMeta<Clid, u64, PeerNode>;

/// Where raft finds a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerNode {
    /// Peer URLs.
    pub peer_urls: Vec<String>,
}

/// What a log entry commands: an encoded `Batch`.
#[derive(Clone, PartialEq)]
pub struct Command {
    /// The batch.
    pub data: Bytes,
    /// Where it stands in our log, once it does.
    pub at: Position,
}

impl Command {
    /// A command that is not in the log yet.
    pub fn new(data: Bytes) -> Self {
        Self { data, at: Position::default() }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.data.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// openraft wants its data to be serde types; the log and the network write the bytes themselves.
impl Serialize for Command {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.data)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(d).map(|v| Self::new(v.into()))
    }
}
