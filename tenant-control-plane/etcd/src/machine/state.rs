//! What all members agree on after the same entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use etcd_api::pb::etcdserverpb::AlarmMember;
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::access::store::Store as Access;
use crate::mvcc::store::{Lease, Revision, Store};
use crate::pb;
use crate::storage::log::{EntryType, LogEntry, LogId};

/// SHA-256.
pub type Digest = [u8; 32];

/// The replicated state.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Keys and leases.
    pub store: Store,
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// JSON of raft's stored membership; only the raft module reads it.
    pub membership: Bytes,
    /// Hash chain over the applied entries and what they did, once begun: equal on all members
    /// after the same entry, or one of them is wrong.
    pub digest: Option<Digest>,
    /// Names and URLs by member id.
    pub members: BTreeMap<u64, pb::MemberInfo>,
    /// Raised alarms: member and type.
    pub alarms: BTreeSet<(u64, i32)>,
    /// Users and roles.
    pub access: Access,
}

impl State {
    /// Begins the digest with what does not depend on how this member came here.
    pub fn begin_digest(&mut self) {
        let head = pb::StateHead {
            applied: None,
            membership: Bytes::new(),
            members: Vec::new(),
            keys: 0,
            digest: Bytes::new(),
            ..self.head(0)
        };
        self.digest = Some(Sha256::digest(head.encode_to_vec()).into());
    }

    /// Extends the digest by an entry, what became of its requests, and the revisions that they
    /// made.
    pub fn link(&mut self, entry: &LogEntry, went_well: &[bool], revisions: &[Arc<Revision>]) {
        let Some(before) = self.digest else { return };
        let mut h = Sha256::new();
        h.update(before);
        h.update(entry.index.to_le_bytes());
        h.update(entry.term.to_le_bytes());
        h.update([match entry.entry_type {
            EntryType::Blank => 0,
            EntryType::Batch => 1,
            EntryType::Membership => 2,
        }]);
        // How a membership is written is each release's own affair.
        if entry.entry_type != EntryType::Membership {
            h.update(&entry.data);
        }
        h.update(went_well.iter().map(|well| u8::from(*well)).collect::<Vec<_>>());
        h.update(self.access.revision.to_le_bytes());
        h.update([u8::from(self.access.enabled)]);
        h.update((self.store.leases.len() as u64).to_le_bytes());
        for event in revisions.iter().flat_map(|revision| &revision.events) {
            let v = &event.version;
            h.update(&event.key);
            for number in [v.main, v.create, v.version, v.lease] {
                h.update(number.to_le_bytes());
            }
            // Where a value is stored is each member's own affair.
            for number in [v.sub, v.value.len, v.value.crc] {
                h.update(number.to_le_bytes());
            }
        }
        self.digest = Some(h.finalize().into());
    }

    /// Everything but the keys.
    pub fn head(&self, log_segment: u32) -> pb::StateHead {
        pb::StateHead {
            applied: self.applied.map(|(term, index)| pb::LogId { term, index }),
            membership: self.membership.clone(),
            revision: self.store.revision,
            compacted: self.store.compacted,
            leases: self
                .store
                .leases
                .iter()
                .map(|(id, l)| pb::LeaseGrant {
                    id: *id,
                    ttl: l.ttl,
                    remaining: l.remaining,
                    word: l.word,
                })
                .collect(),
            members: self.members.values().cloned().collect(),
            alarms: self
                .alarms
                .iter()
                .map(|(member_id, alarm)| AlarmMember { member_id: *member_id, alarm: *alarm })
                .collect(),
            keys: self.store.index.len() as u64,
            log_segment,
            auth: Some(self.access.save()),
            digest: self.digest.map(|digest| digest.to_vec().into()).unwrap_or_default(),
        }
    }

    /// A state without keys from its head.
    pub fn from_head(head: &pb::StateHead) -> Self {
        let store = Store {
            revision: head.revision,
            compacted: head.compacted,
            leases: head
                .leases
                .iter()
                .map(|l| {
                    let lease = Lease {
                        ttl: l.ttl,
                        remaining: l.remaining,
                        word: l.word,
                        ..Default::default()
                    };
                    (l.id, lease)
                })
                .collect(),
            ..Default::default()
        };
        Self {
            store,
            applied: head.applied.map(|id| (id.term, id.index)),
            membership: head.membership.clone(),
            digest: head.digest.as_ref().try_into().ok(),
            members: head.members.iter().map(|m| (m.id, m.clone())).collect(),
            alarms: head.alarms.iter().map(|a| (a.member_id, a.alarm)).collect(),
            access: Access::load(head.auth.as_ref()),
        }
    }
}
