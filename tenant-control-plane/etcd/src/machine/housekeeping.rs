//! Work that nobody waits for: sweeping what was compacted, and freeing disk space.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Machine;
use super::view::View;
use crate::mvcc::Values;
use crate::mvcc::history::{History, Version};
use crate::mvcc::index::{Key, KeyRange};
use crate::storage::files::ValueRef;

const KEYS_PER_LOCK: usize = 256;
/// A segment is worth emptying when less than this share of it is in use.
const SPARSE: f64 = 0.5;

impl Machine {
    /// Sweeps for ever, whenever the bell rings.
    pub async fn sweep_loop(self: Arc<Self>) {
        loop {
            self.sweep_bell.notified().await;
            while self.sweep_some() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Frees the versions that a compaction made unreachable; false when there are none left, or
    /// a view is open (its end rings the bell).
    pub fn sweep_some(&self) -> bool {
        let mut state = self.write();
        self.pins.load(Ordering::Acquire) == 0 && state.store.sweep(KEYS_PER_LOCK)
    }

    /// Deletes the segments that neither the checkpoint just written, nor the log, nor anybody who
    /// reads or writes values at the moment needs.
    pub fn free_segments(&self, checkpoint: &View) -> io::Result<u64> {
        // In this order: who holds the log from now on writes behind the checkpoint's first
        // segment, and who opens a view after the look at the state sees only what is in it.
        if self.log.is_held() {
            return Ok(0);
        }
        let now: HashSet<u32> = {
            let state = self.read();
            if !checkpoint.is_current() {
                return Ok(0);
            }
            state.store.live.keys().copied().collect()
        };
        if self.pins.load(Ordering::Acquire) > 1 {
            return Ok(0);
        }
        // The checkpoint's first segment, not the log's: a recovery begins there.
        let from = checkpoint.head.log_segment;
        self.log.remove_segments(from, |id| {
            !checkpoint.live_segments.contains(&id) && !now.contains(&id)
        })
    }

    /// Copies the values that sparse segments still hold to the end of the log, so that the next
    /// checkpoint can let those segments go. Returns the bytes that were copied.
    pub async fn evacuate(&self, log_from: u32) -> io::Result<u64> {
        let sparse = self.sparse_segments(log_from)?;
        if sparse.is_empty() {
            return Ok(0);
        }
        let all = KeyRange::From(Vec::new());
        let mut after: Option<Key> = None;
        let mut copied = 0;
        loop {
            let (moves, last) = self.find_values(&all, after.as_deref(), &sparse);
            copied += self.move_values(&moves)?;
            match last {
                Some(key) => after = Some(key),
                None => return Ok(copied),
            }
            tokio::task::yield_now().await;
        }
    }

    fn sparse_segments(&self, log_from: u32) -> io::Result<HashSet<u32>> {
        let live = self.read().store.live.clone();
        let mut sparse = HashSet::new();
        for (id, bytes) in live {
            if id >= log_from {
                continue;
            }
            let size = self.log.files().get(id)?.len()?;
            if (bytes as f64) < size as f64 * SPARSE {
                sparse.insert(id);
            }
        }
        Ok(sparse)
    }

    fn find_values(
        &self,
        all: &KeyRange,
        after: Option<&[u8]>,
        sparse: &HashSet<u32>,
    ) -> (Vec<(Key, ValueRef)>, Option<Key>) {
        let state = self.read();
        let mut found = Vec::new();
        let mut visited = 0;
        for (key, history) in state.store.index.range(all, after) {
            for v in history.versions() {
                if sparse.contains(&v.value.segment) {
                    found.push((Arc::clone(key), v.value));
                }
            }
            visited += 1;
            if visited == KEYS_PER_LOCK {
                return (found, Some(Arc::clone(key)));
            }
        }
        (found, None)
    }

    fn move_values(&self, moves: &[(Key, ValueRef)]) -> io::Result<u64> {
        if moves.is_empty() {
            return Ok(0);
        }
        let files = self.log.files();
        let _hold = self.log.hold();
        let values = moves.iter().map(|(_, at)| files.load(*at)).collect::<io::Result<Vec<_>>>()?;
        let places = self.log.put_values(&values);
        let mut state = self.write();
        for ((key, old), new) in moves.iter().zip(places) {
            let mut moved = 0;
            if let Some(history) = state.store.index.get_mut(key) {
                for v in versions_mut(history) {
                    if v.value == *old {
                        v.value = new;
                        moved += 1;
                    }
                }
            }
            for _ in 0..moved {
                state.store.count_live(*old, false);
                state.store.count_live(new, true);
            }
        }
        Ok(values.iter().map(|v| v.len() as u64).sum())
    }
}

fn versions_mut(history: &mut History) -> &mut [Version] {
    match history {
        History::One(v) => std::slice::from_mut(v),
        History::Many(all) => all,
    }
}
