//! The machine with its log, without raft: checkpoints, recovery, snapshots, disk space.

pub(crate) mod mangled;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etcd_api::pb::etcdserverpb::{CompactionRequest, PutRequest, RangeRequest};
use prost::Message;
use tempfile::TempDir;

use super::Machine;
use super::view::View;
use crate::pb;
use crate::pb::proposal::Op;
use crate::storage::disk::{Disk, Host};
use crate::storage::log::EntryType;

/// A machine that is fed like raft would, with every entry committed at once.
struct Fed {
    pub machine: Arc<Machine>,
    next: u64,
}

impl Fed {
    fn open(dir: &Path) -> Self {
        Self::try_open(Arc::new(Host), dir).unwrap()
    }

    pub fn try_open(disk: Arc<dyn Disk>, dir: &Path) -> anyhow::Result<Self> {
        let machine = Machine::open(disk, dir)?;
        let mut fed = Self { machine, next: 0 };
        fed.next = fed.machine.applied_next();
        // What raft does at a start.
        for entry in fed.machine.log.read(fed.next, u64::MAX, usize::MAX)? {
            fed.machine.apply(&entry, None);
            fed.next = entry.index + 1;
        }
        Ok(fed)
    }

    fn apply(&mut self, ops: Vec<Op>) {
        let proposal = |op| pb::Proposal { id: 1, op: Some(op), caller: None };
        let proposals = ops.into_iter().map(proposal);
        let batch = pb::Batch { proposals: proposals.collect() };
        self.apply_raw(EntryType::Batch, batch.encode_to_vec().into());
    }

    pub fn apply_raw(&mut self, entry_type: EntryType, data: Bytes) {
        let entry = (self.next, 1, entry_type, data);
        self.machine.log.append([entry], Box::new(|| {}));
        let entries = self.machine.log.read(self.next, self.next + 1, usize::MAX).unwrap();
        self.machine.apply(&entries[0], None);
        self.next += 1;
    }

    pub fn put(&mut self, key: &str, value: &[u8]) {
        self.apply(vec![put(key, value)]);
    }

    pub fn compact(&mut self, revision: i64) {
        self.apply(vec![Op::Compact(CompactionRequest { revision, physical: false })]);
    }

    pub fn checkpoint(&self) -> View {
        let view = self.machine.checkpoint().unwrap();
        self.machine.free_segments(&view).unwrap();
        view
    }

    fn state(&self) -> (i64, Option<[u8; 32]>, Vec<(String, Bytes)>) {
        let state = self.machine.read();
        state.store.validate();
        let files = self.machine.log.files();
        let keys = state
            .store
            .index
            .iter()
            .filter_map(|(k, h)| Some((k, h.at(i64::MAX)?)))
            .map(|(k, v)| {
                let key = String::from_utf8(k.to_vec()).unwrap();
                (key, files.read(v.value).unwrap())
            })
            .collect();
        (state.store.revision, state.digest, keys)
    }
}

fn put(key: &str, value: &[u8]) -> Op {
    Op::Put(PutRequest {
        key: key.to_owned().into(),
        value: value.to_vec().into(),
        ..Default::default()
    })
}

#[test]
fn recovery_gives_the_same_state_from_the_log_and_from_a_checkpoint() {
    let dir = TempDir::new().unwrap();
    let mut fed = Fed::open(dir.path());
    fed.apply(vec![Op::BeginDigest(true)]);
    fed.apply(vec![Op::LeaseGrant(pb::LeaseGrant { id: 5, ttl: 60, ..Default::default() })]);
    let times = vec![pb::LeaseGrant { id: 5, remaining: 7, ..Default::default() }];
    let times = pb::LeaseTimes { leases: times, term: 1, word: 2 };
    let stale = pb::LeaseTimes { leases: Vec::new(), word: 1, ..times.clone() };
    let old = vec![pb::LeaseGrant { id: 5, remaining: 50, ..Default::default() }];
    let of_another_term = pb::LeaseTimes { leases: old.clone(), term: 9, word: 99 };
    fed.apply(vec![Op::LeaseTimes(times)]);
    fed.apply(vec![Op::LeaseTimes(pb::LeaseTimes { leases: old, ..stale })]);
    fed.apply(vec![Op::LeaseTimes(of_another_term)]);
    fed.apply(vec![Op::LeaseExpired(pb::LeaseExpired { id: 5, term: 9 })]);
    for i in 0..50 {
        fed.apply(vec![put(&format!("k{}", i % 7), b"v"), put("other", &[i])]);
    }
    let before = fed.state();
    assert_eq!(before.0, 101, "one revision per request, not per entry");
    assert!(before.1.is_some_and(|digest| digest != [0; 32]), "every entry is in the digest");
    drop(fed);
    let mut fed = Fed::open(dir.path());
    assert_eq!(fed.state(), before);
    drop(fed.checkpoint());
    fed.put("after", b"the checkpoint");
    let before = fed.state();
    drop(fed);
    let fed = Fed::open(dir.path());
    assert_eq!(fed.state(), before);
    let lease = fed.machine.read().store.leases[&5].clone();
    assert_eq!((lease.ttl, lease.remaining), (60, 7));
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut fed = Fed::open(dir.path());
    fed.put("a", b"1");
    drop(fed.checkpoint());
    drop(fed);
    let path = dir.path().join("checkpoint");
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut bad = whole.clone();
        bad[at] ^= 4;
        std::fs::write(&path, &bad).unwrap();
        // Padding between records carries nothing and is not covered.
        if let Ok(machine) = Machine::open(Arc::new(Host), dir.path()) {
            assert_eq!(machine.revision(), 2);
        }
    }
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(Machine::open(Arc::new(Host), dir.path()).is_err());
}

#[test]
fn a_view_stands_still_while_keys_change_and_compaction_waits_for_it() {
    let dir = TempDir::new().unwrap();
    let mut fed = Fed::open(dir.path());
    for i in 0..10 {
        fed.put(&format!("k{i}"), b"old");
    }
    let mut view = View::open(&fed.machine);
    let mut seen = view.next(3).unwrap();
    for i in 0..10 {
        fed.put(&format!("k{i}"), b"new");
        fed.put(&format!("k{i}new"), b"new");
    }
    let revision = fed.machine.revision();
    fed.compact(revision);
    assert!(!fed.machine.sweep_some(), "nothing is swept under a view");
    loop {
        let more = view.next(3).unwrap();
        if more.is_empty() {
            break;
        }
        seen.extend(more);
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.iter().all(|(_, versions)| versions.len() == 1));
    let items = view.with_values(seen).unwrap();
    assert!(items.iter().all(|i| &i.versions[0].value[..] == b"old"));
    drop(view);
    while fed.machine.sweep_some() {}
    let state = fed.machine.read();
    state.store.validate();
    assert!(state.store.index.iter().all(|(_, h)| h.versions().len() == 1));
}

#[test]
fn a_snapshot_makes_another_member_the_same() {
    let (ours, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut leader = Fed::open(ours.path());
    for i in 0..200 {
        leader.put(&format!("k{}", i % 90), format!("value {i}").as_bytes());
    }
    let mut follower = Fed::open(theirs.path());
    follower.put("stale", b"x");
    let mut view = View::open(&leader.machine);
    let mut receiving = follower.machine.receive(&view.head);
    let mut sent = 0;
    loop {
        let keys = view.next(16).unwrap();
        if keys.is_empty() {
            break;
        }
        sent += keys.len() as u64;
        receiving.add(view.with_values(keys).unwrap()).unwrap();
    }
    assert!(follower.machine.receive(&view.head).finish(sent).is_err());
    let received = receiving.finish(sent).unwrap();
    follower.machine.install(received).unwrap();
    follower.machine.log.purge((1, leader.next - 1));
    assert_eq!(follower.state(), leader.state());
    drop(follower);
    // Durable when install returned.
    let follower = Fed::open(theirs.path());
    assert_eq!(follower.state(), leader.state());
}

#[test]
fn a_checkpoint_keeps_what_a_snapshot_has_brought_so_far_and_a_view_ends_with_its_state() {
    let (ours, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut leader = Fed::open(ours.path());
    // More than two segments.
    for i in 0..40_u8 {
        leader.put(&format!("k{i}"), &vec![i; 1 << 20]);
    }
    let mut follower = Fed::open(theirs.path());
    follower.put("stale", b"x");
    let mut view = View::open(&leader.machine);
    let mut receiving = follower.machine.receive(&view.head);
    let keys = view.next(100).unwrap();
    receiving.add(view.with_values(keys).unwrap()).unwrap();
    drop(follower.checkpoint());
    follower.machine.log.purge((1, follower.next - 1));
    drop(follower.checkpoint());
    let mut old = View::open(&follower.machine);
    follower.machine.install(receiving.finish(40).unwrap()).unwrap();
    assert_eq!(follower.state(), leader.state());
    assert!(old.next(1).is_err(), "its keys are not there any more");
}

#[tokio::test]
async fn space_of_overwritten_values_comes_back() {
    let dir = TempDir::new().unwrap();
    let mut fed = Fed::open(dir.path());
    let value = vec![7; 1 << 20];
    fed.put("keep", b"small and old");
    for _ in 0..80 {
        fed.put("overwritten", &value);
    }
    let revision = fed.machine.revision();
    fed.compact(revision);
    while fed.machine.sweep_some() {}
    let before = fed.machine.log.usage().0;
    assert!(before > 80 << 20);
    for _ in 0..2 {
        drop(fed.checkpoint());
        fed.machine.log.purge((1, fed.next - 1));
        let from = fed.machine.log.segment_from(0);
        fed.machine.evacuate(from).await.unwrap();
    }
    drop(fed.checkpoint());
    let after = fed.machine.log.usage().0;
    assert!(after < 40 << 20, "{after} of {before} bytes are left");
    let r = RangeRequest { key: "keep".into(), ..Default::default() };
    let kept = fed.machine.range(&r).await.unwrap().kvs;
    assert_eq!(&kept[0].value[..], b"small and old");
    let state = fed.state();
    drop(fed);
    assert_eq!(Fed::open(dir.path()).state(), state);
}
