//! Freeing what a compaction made unreachable, a little at a time.

use super::store::Store;

impl Store {
    /// Visits at most `max` keys that got garbage at or before the compacted revision. Returns
    /// whether there is more to do. Reads are right at any time: what is dropped here has been
    /// refused since [`Store::compact`].
    pub fn sweep(&mut self, max: usize) -> bool {
        for _ in 0..max {
            match self.garbage.front() {
                Some((due, _)) if *due <= self.compacted => {}
                _ => return false,
            }
            let Some((_, key)) = self.garbage.pop_front() else {
                return false;
            };
            let compacted = self.compacted;
            let Some(history) = self.index.get_mut(&key) else {
                continue;
            };
            let mut dropped = Vec::new();
            let empty = history.compact(compacted, |v| dropped.push(v.value));
            if empty {
                self.index.remove(&key);
            }
            for value in dropped {
                self.count_live(value, false);
            }
        }
        true
    }
}
