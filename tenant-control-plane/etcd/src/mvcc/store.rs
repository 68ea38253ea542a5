//! The key-value state of one member.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use etcd_api::error::EtcdError;

use super::history::{History, Version};
use super::index::{Index, Key, KeyRange};
use crate::storage::files::ValueRef;

/// What happened to a key.
#[derive(Debug, Clone)]
pub struct Event {
    /// The key.
    pub key: Key,
    /// The version that this event made; a tombstone for a delete.
    pub version: Version,
    /// The value, if this process still has it in memory.
    pub value: Option<Bytes>,
    /// The key just before, if it was there.
    pub before: Option<Version>,
}

/// All events of one revision, in order.
#[derive(Debug, Clone)]
pub struct Revision {
    /// The revision.
    pub main: i64,
    /// Its events.
    pub events: Vec<Event>,
}

/// A lease and what is attached to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    /// Granted time to live, seconds.
    pub ttl: i64,
    /// What the leader last said is left of it, seconds; 0 when it has been renewed since.
    pub remaining: i64,
    /// Which of the leader's words that was.
    pub word: u64,
    /// Attached keys.
    pub keys: BTreeSet<Key>,
}

/// Keys, leases and the revision counter.
///
/// Invariants, checked by [`Store::validate`]: versions of a key ascend; no version is newer than
/// `revision`; a live key's lease exists and lists the key, and a lease lists nothing else; the
/// live bytes per segment are the sum over all versions.
#[derive(Debug, Clone)]
pub struct Store {
    /// All keys.
    pub index: Index,
    /// The newest revision. A fresh store is at 1, as etcd's.
    pub revision: i64,
    /// Reads below this revision are refused.
    pub compacted: i64,
    /// Leases by id.
    pub leases: BTreeMap<i64, Lease>,
    /// Grows when a lease comes or goes.
    pub lease_changes: u64,
    /// The compaction from which on a key has garbage (a put: its own revision; a tombstone: one
    /// more), in order but for that one: what a compaction has to visit.
    pub garbage: VecDeque<(i64, Key)>,
    /// Bytes of values in use, by segment.
    pub live: HashMap<u32, u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            index: Index::default(),
            revision: 1,
            compacted: 0,
            leases: BTreeMap::new(),
            lease_changes: 0,
            garbage: VecDeque::new(),
            live: HashMap::new(),
        }
    }
}

impl Store {
    /// Whether a read at `revision` (0: now) can be answered.
    pub fn check_revision(&self, revision: i64) -> Result<(), EtcdError> {
        if revision > self.revision {
            Err(EtcdError::FutureRevision)
        } else if revision > 0 && revision < self.compacted {
            Err(EtcdError::Compacted)
        } else {
            Ok(())
        }
    }

    /// Begins a transaction that takes the next revision if it changes anything.
    pub fn begin(&mut self) -> Write<'_> {
        let main = self.revision + 1;
        Write { store: self, main, events: Vec::new() }
    }

    /// Grants a lease. `ttl` in seconds.
    pub fn grant(&mut self, id: i64, ttl: i64) -> Result<(), EtcdError> {
        if self.leases.contains_key(&id) {
            return Err(EtcdError::LeaseExists);
        }
        self.leases.insert(id, Lease { ttl, ..Lease::default() });
        self.lease_changes += 1;
        Ok(())
    }

    /// Revokes a lease and deletes its keys in one revision.
    pub fn revoke(&mut self, id: i64) -> Result<Option<Revision>, EtcdError> {
        let lease = self.leases.get(&id).ok_or(EtcdError::LeaseNotFound)?;
        let keys: Vec<Key> = lease.keys.iter().cloned().collect();
        let mut write = self.begin();
        for key in keys {
            write.delete_one(&key);
        }
        let revision = write.commit();
        self.leases.remove(&id);
        self.lease_changes += 1;
        Ok(revision)
    }

    /// Refuses reads below `revision` from now on. The space is freed by [`super::compact`].
    pub fn compact(&mut self, revision: i64) -> Result<(), EtcdError> {
        if revision <= self.compacted {
            return Err(EtcdError::Compacted);
        }
        if revision > self.revision {
            return Err(EtcdError::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    /// A version as it is now: its value may have been moved. None if it was swept.
    pub fn find(&self, key: &[u8], version: &Version) -> Option<Version> {
        let versions = self.index.get(key)?.versions();
        versions.iter().find(|v| (v.main, v.sub) == (version.main, version.sub)).copied()
    }

    /// Puts back a key with its versions, when loading a checkpoint or a snapshot. Keys come in
    /// any order; call [`Self::finish_load`] after the last.
    pub fn load(&mut self, key: Key, history: History) {
        for v in history.versions() {
            self.count_live(v.value, true);
            if v.is_tombstone() {
                self.garbage.push_back((v.main + 1, Arc::clone(&key)));
            }
        }
        for pair in history.versions().windows(2) {
            if !pair[1].is_tombstone() {
                self.garbage.push_back((pair[1].main, Arc::clone(&key)));
            }
        }
        let last = history.last();
        if last.lease != 0
            && !last.is_tombstone()
            && let Some(lease) = self.leases.get_mut(&last.lease)
        {
            lease.keys.insert(Arc::clone(&key));
        }
        self.index.insert(key, history);
    }

    /// Sorts what [`Self::load`] collected.
    pub fn finish_load(&mut self) {
        self.garbage.make_contiguous().sort_unstable_by_key(|(due, _)| *due);
    }

    /// Adds or subtracts a value from its segment's live bytes.
    pub fn count_live(&mut self, value: ValueRef, add: bool) {
        if value.segment == 0 {
            return;
        }
        let bytes = self.live.entry(value.segment).or_default();
        if add {
            *bytes += u64::from(value.len);
        } else {
            *bytes = bytes.saturating_sub(u64::from(value.len));
        }
        if *bytes == 0 {
            self.live.remove(&value.segment);
        }
    }

    /// Panics if an invariant is broken. For tests.
    pub fn validate(&self) {
        let mut live: HashMap<u32, u64> = HashMap::new();
        let mut attached: BTreeMap<i64, BTreeSet<Key>> = BTreeMap::new();
        for (key, history) in self.index.iter() {
            for pair in history.versions().windows(2) {
                assert!((pair[0].main, pair[0].sub) < (pair[1].main, pair[1].sub));
            }
            for v in history.versions() {
                assert!(v.main <= self.revision && v.create <= v.main);
                if v.value.segment != 0 {
                    *live.entry(v.value.segment).or_default() += u64::from(v.value.len);
                }
            }
            let last = history.last();
            if !last.is_tombstone() && last.lease != 0 {
                attached.entry(last.lease).or_default().insert(Arc::clone(key));
            }
        }
        assert_eq!(live, self.live, "live bytes");
        for (id, lease) in &self.leases {
            assert_eq!(attached.remove(id).unwrap_or_default(), lease.keys);
        }
        assert!(attached.is_empty(), "keys of unknown leases: {attached:?}");
        assert!(self.garbage.iter().is_sorted_by(|a, b| a.0 <= b.0 + 1), "garbage is ordered");
    }
}

/// An open transaction: sees its own changes.
pub struct Write<'a> {
    /// The store that is being changed.
    pub store: &'a mut Store,
    main: i64,
    events: Vec<Event>,
}

impl Write<'_> {
    /// The revision at which reads inside the transaction see the store.
    pub fn read_revision(&self) -> i64 {
        if self.events.is_empty() { self.main - 1 } else { self.main }
    }

    /// Puts a key. The lease has been checked to exist.
    pub fn put(&mut self, key: &[u8], value: ValueRef, in_memory: Option<Bytes>, lease: i64) {
        let before = self.store.index.get(key).map(|h| *h.last());
        let alive = before.filter(|v| !v.is_tombstone());
        let version = Version {
            main: self.main,
            sub: u32::try_from(self.events.len()).expect("a transaction is bounded"),
            create: alive.map_or(self.main, |v| v.create),
            version: alive.map_or(1, |v| v.version + 1),
            lease,
            value,
        };
        let (key, _) = self.store.index.push(key, version);
        self.store.count_live(value, true);
        if before.is_some() {
            self.store.garbage.push_back((self.main, Arc::clone(&key)));
        }
        let old_lease = alive.map_or(0, |v| v.lease);
        if old_lease != lease {
            self.detach(old_lease, &key);
            if let Some(l) = self.store.leases.get_mut(&lease) {
                l.keys.insert(Arc::clone(&key));
            }
        }
        self.events.push(Event { key, version, value: in_memory, before: alive });
    }

    /// Deletes every key in the range that is there; returns how many.
    pub fn delete(&mut self, range: &KeyRange) -> i64 {
        let keys: Vec<Key> = self
            .store
            .index
            .range(range, None)
            .filter(|(_, h)| !h.last().is_tombstone())
            .map(|(k, _)| Arc::clone(k))
            .collect();
        for key in &keys {
            self.delete_one(key);
        }
        keys.len() as i64
    }

    fn delete_one(&mut self, key: &Key) {
        let Some(before) = self.store.index.get(key).and_then(|h| h.at(i64::MAX)).copied() else {
            return;
        };
        let version = Version {
            main: self.main,
            sub: u32::try_from(self.events.len()).expect("a transaction is bounded"),
            create: 0,
            version: 0,
            lease: 0,
            value: ValueRef::default(),
        };
        self.store.index.push(key, version);
        self.store.garbage.push_back((self.main + 1, Arc::clone(key)));
        self.detach(before.lease, key);
        self.events.push(Event {
            key: Arc::clone(key),
            version,
            value: None,
            before: Some(before),
        });
    }

    fn detach(&mut self, lease: i64, key: &Key) {
        if let Some(l) = self.store.leases.get_mut(&lease) {
            l.keys.remove(key);
        }
    }

    /// Takes the revision if anything changed.
    pub fn commit(self) -> Option<Revision> {
        if self.events.is_empty() {
            return None;
        }
        self.store.revision = self.main;
        Some(Revision { main: self.main, events: self.events })
    }
}
