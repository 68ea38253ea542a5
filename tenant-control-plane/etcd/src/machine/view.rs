//! A consistent view of the whole state while writing goes on.
//!
//! MVCC gives it for nothing: the keys at revision R are the versions up to R. All that is needed
//! is that nothing is swept meanwhile, which the pin ensures. Checkpoints, snapshots to other
//! members, `etcdctl snapshot save` and hashes are all views.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Machine;
use crate::mvcc::Values;
use crate::mvcc::history::Version;
use crate::mvcc::index::{Key, KeyRange};
use crate::pb;
use crate::storage::files::Files;

/// Keys with their versions up to the view's revision, oldest first.
pub type Histories = Vec<(Key, Vec<Version>)>;

/// A view. Keep it no longer than needed: it holds up compaction.
pub struct View {
    machine: Arc<Machine>,
    /// Everything but the keys.
    pub head: pb::StateHead,
    /// Segments that held a needed value when the view was opened.
    pub live_segments: HashSet<u32>,
    /// [`Machine::installed`] when it was opened.
    installed: u64,
    after: Option<Key>,
    all: KeyRange,
    done: bool,
}

impl View {
    /// Opens a view of the current state.
    pub fn open(machine: &Arc<Machine>) -> Self {
        let state = machine.read();
        machine.pins.fetch_add(1, Ordering::AcqRel);
        Self {
            head: state.head(machine.log.segment_from(0)),
            live_segments: state.store.live.keys().copied().collect(),
            installed: machine.installed.load(Ordering::Acquire),
            machine: Arc::clone(machine),
            after: None,
            all: KeyRange::From(Vec::new()),
            done: false,
        }
    }

    /// Whether the state that is viewed was not replaced by another member's snapshot. Stays true
    /// while the state is locked.
    pub fn is_current(&self) -> bool {
        self.machine.installed.load(Ordering::Acquire) == self.installed
    }

    /// Where the values are.
    pub fn files(&self) -> Arc<Files> {
        Arc::clone(self.machine.log.files())
    }

    /// The next keys in order, about `max` of them; empty at the end. Fails when the state that is
    /// viewed was replaced by another member's snapshot.
    pub fn next(&mut self, max: usize) -> io::Result<Histories> {
        let mut out = Histories::new();
        while out.is_empty() && !self.done {
            let state = self.machine.read();
            if !self.is_current() {
                return Err(io::Error::other(
                    "the state was replaced by a snapshot of the leader meanwhile; try again",
                ));
            }
            let mut visited = 0;
            let mut last = None;
            for (key, history) in state.store.index.range(&self.all, self.after.as_deref()) {
                visited += 1;
                let versions = history.versions();
                let n = versions.partition_point(|v| v.main <= self.head.revision);
                if n > 0 {
                    out.push((Arc::clone(key), versions[..n].to_vec()));
                }
                last = Some(key);
                if visited == max {
                    break;
                }
            }
            self.after = last.cloned();
            self.done = visited < max;
        }
        Ok(out)
    }

    /// As stored in a checkpoint: with references to the values.
    pub fn with_references(keys: Histories) -> Vec<pb::KeyHistory> {
        keys.into_iter()
            .map(|(key, versions)| pb::KeyHistory {
                key: key.to_vec().into(),
                versions: versions
                    .iter()
                    .map(|v| pb::KeyVersion {
                        segment: v.value.segment,
                        offset: v.value.offset,
                        length: v.value.len,
                        crc: v.value.crc,
                        ..plain(v)
                    })
                    .collect(),
            })
            .collect()
    }

    /// As sent to another member: with the values themselves.
    pub fn with_values(&self, keys: Histories) -> io::Result<Vec<pb::KeyHistory>> {
        let files = self.machine.log.files();
        keys.into_iter()
            .map(|(key, versions)| {
                Ok(pb::KeyHistory {
                    key: key.to_vec().into(),
                    versions: versions
                        .iter()
                        .map(|v| Ok(pb::KeyVersion { value: files.load(v.value)?, ..plain(v) }))
                        .collect::<io::Result<_>>()?,
                })
            })
            .collect()
    }
}

fn plain(v: &Version) -> pb::KeyVersion {
    pb::KeyVersion {
        main: v.main,
        sub: v.sub,
        create: v.create,
        version: v.version,
        lease: v.lease,
        ..Default::default()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.machine.pins.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.machine.sweep_bell.notify_one();
        }
    }
}
