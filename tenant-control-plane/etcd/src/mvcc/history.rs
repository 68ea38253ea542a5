//! The versions of one key.

use crate::storage::files::ValueRef;

/// One version of a key: a put, or a tombstone. 56 bytes, because there is one per key and more
/// per history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Revision of the transaction that made it.
    pub main: i64,
    /// Revision at which the key's current life began.
    pub create: i64,
    /// Number of puts since then, this one included; 0 is a tombstone.
    pub version: i64,
    /// Attached lease, or 0.
    pub lease: i64,
    /// The value; empty for a tombstone.
    pub value: ValueRef,
    /// Position among the changes of its transaction.
    pub sub: u32,
}

impl Version {
    /// Whether this version says that the key is gone.
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

/// Versions in ascending order. Most keys have one, which is stored in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum History {
    /// The only version.
    One(Version),
    /// Two or more.
    Many(Vec<Version>),
}

impl History {
    /// All versions, oldest first.
    pub fn versions(&self) -> &[Version] {
        match self {
            History::One(v) => std::slice::from_ref(v),
            History::Many(v) => v,
        }
    }

    /// The newest version, tombstone or not.
    pub fn last(&self) -> &Version {
        match self {
            History::One(v) => v,
            History::Many(v) => v.last().expect("a history is never empty"),
        }
    }

    /// The key as it was at revision `at`, if it was there.
    pub fn at(&self, at: i64) -> Option<&Version> {
        let versions = self.versions();
        let newest = versions.last().expect("a history is never empty");
        let found = if newest.main <= at {
            newest
        } else {
            let n = versions.partition_point(|v| v.main <= at);
            versions.get(n.checked_sub(1)?)?
        };
        (!found.is_tombstone()).then_some(found)
    }

    /// Adds the newest version.
    pub fn push(&mut self, version: Version) {
        debug_assert!(
            (self.last().main, self.last().sub) < (version.main, version.sub),
            "versions ascend"
        );
        match self {
            History::One(first) => *self = History::Many(vec![*first, version]),
            History::Many(all) => all.push(version),
        }
    }

    /// Drops what no read at or after `compacted` can see, passing each dropped version to
    /// `dropped`. Returns whether nothing is left.
    pub fn compact(&mut self, compacted: i64, mut dropped: impl FnMut(&Version)) -> bool {
        let versions = self.versions();
        let visible = versions.partition_point(|v| v.main <= compacted);
        // The newest version at or before the compaction is what a read at that revision sees,
        // unless it is a tombstone, which says no more than an absent key; but a watch may still
        // start at the compacted revision itself and must be told of the delete.
        let mut keep = visible.saturating_sub(1);
        if visible > 0 && versions[keep].is_tombstone() && versions[keep].main < compacted {
            keep = visible;
        }
        versions[..keep].iter().for_each(&mut dropped);
        if keep == 0 {
            return false;
        }
        let rest = &versions[keep..];
        match rest {
            [] => return true,
            [one] => *self = History::One(*one),
            more => *self = History::Many(more.to_vec()),
        }
        false
    }

    /// Whether there is something that a compaction could drop some day.
    pub fn has_garbage(&self) -> bool {
        matches!(self, History::Many(_)) || self.last().is_tombstone()
    }
}
