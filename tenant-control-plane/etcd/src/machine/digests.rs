//! The digests after the last applied entries, so that members can compare theirs at one entry
//! while both go on.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::state::Digest;

/// Entries that are remembered: some seconds under load.
const KEPT: usize = 4096;

/// By log index, in order.
#[derive(Debug, Default)]
pub struct Digests {
    last: Mutex<VecDeque<(u64, Digest)>>,
}

impl Digests {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Digest)>> {
        self.last.lock().expect("no panic while held")
    }

    /// The digest after an entry, if it has been begun.
    pub fn remember(&self, index: u64, digest: Option<Digest>) {
        let Some(digest) = digest else { return };
        let mut last = self.lock();
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back((index, digest));
    }

    /// The newest.
    pub fn newest(&self) -> Option<(u64, Digest)> {
        self.lock().back().copied()
    }

    /// The one after an entry.
    pub fn after(&self, index: u64) -> Option<Digest> {
        let last = self.lock();
        let at = last.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(last[at].1)
    }

    /// The state was replaced: what was before is not its past.
    pub fn forget(&self) {
        self.lock().clear();
    }
}
