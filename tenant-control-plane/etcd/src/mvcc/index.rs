//! All keys in order.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::history::{History, Version};

/// A key. Shared, because the index, leases and watch events all hold it.
pub type Key = Arc<[u8]>;

/// Which keys a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    /// One key.
    One(Vec<u8>),
    /// From the first (inclusive) to the second (exclusive).
    Half(Vec<u8>, Vec<u8>),
    /// From this key on.
    From(Vec<u8>),
}

impl KeyRange {
    /// As requests say it: no end is one key, an end of `\0` is no end.
    pub fn new(key: &[u8], range_end: &[u8]) -> Self {
        match range_end {
            [] => KeyRange::One(key.to_vec()),
            [0] => KeyRange::From(key.to_vec()),
            end => KeyRange::Half(key.to_vec(), end.to_vec()),
        }
    }

    /// Whether the key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(k) => k == key,
            KeyRange::Half(a, b) => a.as_slice() <= key && key < b.as_slice(),
            KeyRange::From(a) => a.as_slice() <= key,
        }
    }

    /// Whether any key can be in both.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        let (a, b) = (self.start(), other.start());
        !self.is_empty()
            && !other.is_empty()
            && self.reaches(b).unwrap_or(true)
            && other.reaches(a).unwrap_or(true)
    }

    /// Whether the end lies behind `key`; `None` if there is no end.
    fn reaches(&self, key: &[u8]) -> Option<bool> {
        match self {
            KeyRange::One(k) => Some(key <= k.as_slice()),
            KeyRange::Half(_, end) => Some(key < end.as_slice()),
            KeyRange::From(_) => None,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, KeyRange::Half(a, b) if a >= b)
    }

    /// The first key that could be in it.
    pub fn start(&self) -> &[u8] {
        match self {
            KeyRange::One(k) | KeyRange::Half(k, _) | KeyRange::From(k) => k,
        }
    }
}

/// Key → history, in key order.
#[derive(Debug, Default, Clone)]
pub struct Index {
    keys: BTreeMap<Key, History>,
}

impl Index {
    /// The history of a key.
    pub fn get(&self, key: &[u8]) -> Option<&History> {
        self.keys.get(key)
    }

    /// Keys in `range` in order, those after `after` only if it is given.
    pub fn range<'a>(
        &'a self,
        range: &'a KeyRange,
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a Key, &'a History)> {
        let end: Bound<&[u8]> = match range {
            KeyRange::One(k) => Bound::Included(k),
            KeyRange::Half(_, end) => Bound::Excluded(end),
            KeyRange::From(_) => Bound::Unbounded,
        };
        let start: Bound<&[u8]> = match after {
            Some(key) => Bound::Excluded(key),
            None => Bound::Included(range.start()),
        };
        // `BTreeMap::range` panics on a range that ends before it starts.
        let valid = match (start, end) {
            (Bound::Included(a), Bound::Excluded(b)) => a < b,
            (Bound::Excluded(a), Bound::Excluded(b) | Bound::Included(b)) => a < b,
            _ => true,
        };
        valid.then(|| self.keys.range::<[u8], _>((start, end))).into_iter().flatten()
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &History)> {
        self.keys.iter()
    }

    /// Adds a version, and returns the shared key with the version before it.
    pub fn push(&mut self, key: &[u8], version: Version) -> (Key, Option<Version>) {
        if let Some((shared, _)) = self.keys.get_key_value(key) {
            let shared = Arc::clone(shared);
            let history = self.keys.get_mut(key).expect("just found");
            let before = *history.last();
            history.push(version);
            return (shared, Some(before));
        }
        let shared: Key = key.into();
        self.keys.insert(Arc::clone(&shared), History::One(version));
        (shared, None)
    }

    /// Puts back a whole history, when loading.
    pub fn insert(&mut self, key: Key, history: History) {
        self.keys.insert(key, history);
    }

    /// For compaction and for moving values.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut History> {
        self.keys.get_mut(key)
    }

    /// Forgets a key whose history is empty.
    pub fn remove(&mut self, key: &[u8]) {
        self.keys.remove(key);
    }

    /// Number of keys, tombstoned ones included.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
