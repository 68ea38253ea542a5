//! What all members agree on after the same entries.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use etcd_api::pb::etcdserverpb::AlarmMember;
use sha2::{Digest, Sha256};

use crate::mvcc::store::{Lease, Store};
use crate::pb;
use crate::storage::log::{EntryType, LogEntry, LogId};

/// The replicated state.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Keys and leases.
    pub store: Store,
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// JSON of raft's stored membership; only the raft module reads it.
    pub membership: Bytes,
    /// Hash chain over all applied entries: equal on all members after the same entry.
    pub chain: [u8; 32],
    /// Names and URLs by member id.
    pub members: BTreeMap<u64, pb::MemberInfo>,
    /// Raised alarms: member and type.
    pub alarms: BTreeSet<(u64, i32)>,
}

impl State {
    /// Extends the hash chain by an entry.
    pub fn link(&mut self, entry: &LogEntry) {
        let mut h = Sha256::new();
        h.update(self.chain);
        h.update(entry.index.to_le_bytes());
        h.update(entry.term.to_le_bytes());
        h.update([match entry.entry_type {
            EntryType::Blank => 0,
            EntryType::Batch => 1,
            EntryType::Membership => 2,
        }]);
        h.update(&entry.data);
        self.chain = h.finalize().into();
    }

    /// Everything but the keys.
    pub fn head(&self, log_segment: u32) -> pb::StateHead {
        pb::StateHead {
            applied: self.applied.map(|(term, index)| pb::LogId { term, index }),
            membership: self.membership.clone(),
            revision: self.store.revision,
            compacted: self.store.compacted,
            chain: self.chain.to_vec().into(),
            leases: self
                .store
                .leases
                .iter()
                .map(|(id, l)| pb::LeaseGrant { id: *id, ttl: l.ttl })
                .collect(),
            members: self.members.values().cloned().collect(),
            alarms: self
                .alarms
                .iter()
                .map(|(member_id, alarm)| AlarmMember { member_id: *member_id, alarm: *alarm })
                .collect(),
            keys: self.store.index.len() as u64,
            log_segment,
        }
    }

    /// A state without keys from its head.
    pub fn from_head(head: &pb::StateHead) -> Self {
        let mut chain = [0; 32];
        if head.chain.len() == 32 {
            chain.copy_from_slice(&head.chain);
        }
        let store = Store {
            revision: head.revision,
            compacted: head.compacted,
            leases: head
                .leases
                .iter()
                .map(|l| {
                    let lease = Lease { ttl: l.ttl, ..Default::default() };
                    (l.id, lease)
                })
                .collect(),
            ..Default::default()
        };
        Self {
            store,
            applied: head.applied.map(|id| (id.term, id.index)),
            membership: head.membership.clone(),
            chain,
            members: head.members.iter().map(|m| (m.id, m.clone())).collect(),
            alarms: head.alarms.iter().map(|a| (a.member_id, a.alarm)).collect(),
        }
    }
}
