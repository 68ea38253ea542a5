//! Between openraft's types and what goes over the wire and to disk.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;

use super::types::{Clid, Command, Entry, LogId, Membership, PeerNode, StoredMembership, Vote};
use crate::pb;
use crate::storage::log::{EntryType, LogEntry};

/// A message from a peer that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The membership is not JSON of a membership.
    #[error("membership: {0}")]
    Membership(#[from] serde_json::Error),
}

impl From<CodecError> for tonic::Status {
    fn from(e: CodecError) -> Self {
        tonic::Status::invalid_argument(e.to_string())
    }
}

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(Clid::new(term), index)
}

pub(super) fn log_id_to_pb(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, index: id.index }
}

pub(super) fn log_id_from_pb(id: pb::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(super) fn vote_to_pb(vote: &Vote) -> pb::VoteState {
    pb::VoteState {
        term: vote.leader_id().term,
        node: vote.leader_id().voted_for,
        committed: vote.is_committed(),
    }
}

pub(super) fn vote_from_pb(vote: pb::VoteState) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.node)
    } else {
        Vote::new(vote.term, vote.node)
    }
}

pub(super) fn required_vote(vote: Option<pb::VoteState>) -> Result<Vote, CodecError> {
    vote.map(vote_from_pb).ok_or(CodecError::Missing("vote"))
}

pub(super) fn entry_to_pb(entry: Entry) -> pb::Entry {
    use pb::entry::Payload;
    pb::Entry {
        id: Some(log_id_to_pb(&entry.log_id)),
        payload: match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(c) => Some(Payload::Batch(c.data)),
            EntryPayload::Membership(m) => Some(Payload::Membership(membership_json(&m))),
        },
    }
}

pub(super) fn entry_from_pb(entry: pb::Entry) -> Result<Entry, CodecError> {
    use pb::entry::Payload;
    let id = entry.id.ok_or(CodecError::Missing("log id"))?;
    Ok(Entry {
        log_id: log_id_from_pb(id),
        payload: match entry.payload {
            None => EntryPayload::Blank,
            Some(Payload::Batch(data)) => EntryPayload::Normal(Command::new(data)),
            Some(Payload::Membership(json)) => {
                EntryPayload::Membership(serde_json::from_slice(&json)?)
            }
        },
    })
}

pub(super) fn membership_json(m: &Membership) -> bytes::Bytes {
    serde_json::to_vec(m).expect("a membership is plain data").into()
}

/// The stored membership of a cluster whose first entry these members are.
pub fn first_membership(members: BTreeMap<u64, Vec<String>>) -> bytes::Bytes {
    let ids: BTreeSet<u64> = members.keys().copied().collect();
    let nodes: BTreeMap<u64, PeerNode> =
        members.into_iter().map(|(id, peer_urls)| (id, PeerNode { peer_urls })).collect();
    let membership = Membership::new(vec![ids], nodes).expect("every voter is a node");
    let stored = StoredMembership::new(Some(log_id(0, 0)), membership);
    serde_json::to_vec(&stored).expect("a membership is plain data").into()
}

/// As the log stores it.
pub(super) fn entry_to_log(entry: Entry) -> (u64, u64, EntryType, bytes::Bytes) {
    let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
    match entry.payload {
        EntryPayload::Blank => (index, term, EntryType::Blank, bytes::Bytes::new()),
        EntryPayload::Normal(c) => (index, term, EntryType::Batch, c.data),
        EntryPayload::Membership(m) => (index, term, EntryType::Membership, membership_json(&m)),
    }
}

pub(super) fn entry_from_log(entry: LogEntry) -> Result<Entry, CodecError> {
    Ok(Entry {
        log_id: log_id(entry.term, entry.index),
        payload: match entry.entry_type {
            EntryType::Blank => EntryPayload::Blank,
            EntryType::Batch => EntryPayload::Normal(Command { data: entry.data, at: entry.at }),
            EntryType::Membership => EntryPayload::Membership(serde_json::from_slice(&entry.data)?),
        },
    })
}
