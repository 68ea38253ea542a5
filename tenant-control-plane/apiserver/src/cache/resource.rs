//! The cache of one resource: its objects, and the recent changes for watchers.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::object::{Filter, Object};
use crate::kinds::Field;

/// Changes that are kept at least, however old.
const HISTORY_MIN: usize = 256;
/// Changes that are kept at most, however young.
const HISTORY_MAX: usize = 16_384;
/// Changes older than this are dropped beyond the minimum.
const HISTORY_AGE: Duration = Duration::from_secs(75);

/// A change, as it happened.
#[derive(Clone)]
pub struct Event {
    /// Revision of the change.
    pub revision: i64,
    /// The object afterwards. For a deletion: the last object, under the deletion's revision.
    pub object: Arc<Object>,
    /// The object before, if there was one.
    pub previous: Option<Arc<Object>>,
    /// True when the object is gone.
    pub deleted: bool,
    at: Instant,
}

/// Objects and history of one key prefix.
pub struct ResourceCache {
    /// Key prefix, without the trailing slash.
    pub prefix: String,
    /// What [`Object`]s of this resource index.
    pub fields: Vec<Field>,
    /// Schema whose defaults stored objects are read with.
    defaults: RwLock<Option<Arc<Value>>>,
    /// Cancelled when the resource is served no more, or another way.
    ended: CancellationToken,
    state: RwLock<State>,
    /// Sequence number behind the last event; watchers wait for it to grow.
    grown: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Box<str>, Arc<Object>>,
    history: VecDeque<Event>,
    /// Sequence number of the oldest event in the history.
    first: u64,
    /// Events up to this revision may be gone from the history.
    floor: i64,
    /// Revision of the last event.
    last_revision: i64,
}

impl State {
    fn push(&mut self, event: Event) {
        debug_assert!(event.revision >= self.last_revision, "revisions never go back");
        self.last_revision = event.revision;
        let now = event.at;
        self.history.push_back(event);
        while self.history.len() > HISTORY_MIN {
            let oldest = &self.history[0];
            if self.history.len() <= HISTORY_MAX && now.duration_since(oldest.at) < HISTORY_AGE {
                break;
            }
            self.floor = oldest.revision;
            self.history.pop_front();
            self.first += 1;
        }
    }
}

/// What a list found.
pub struct Found {
    /// In key order.
    pub objects: Vec<Arc<Object>>,
    /// The objects are as of this revision.
    pub revision: i64,
    /// Objects behind the last one returned; `None` when a selector makes the number unknown.
    pub remaining: Option<usize>,
    /// True when the limit cut the list off.
    pub more: bool,
}

/// The history no longer reaches back to where a watcher is.
#[derive(Debug)]
pub struct TooOld {
    /// The oldest revision from which a watch could start now.
    pub oldest: i64,
}

impl ResourceCache {
    /// An empty cache of a prefix, valid from a revision on.
    pub fn new(prefix: String, fields: Vec<Field>, revision: i64) -> Self {
        let state = State { floor: revision, last_revision: revision, ..State::default() };
        Self {
            prefix,
            fields,
            defaults: RwLock::default(),
            ended: CancellationToken::new(),
            state: RwLock::new(state),
            grown: watch::Sender::new(0),
        }
    }

    /// Reads a stored value as an object of this resource.
    pub fn decode(
        &self,
        key: &str,
        stored: &[u8],
        revision: i64,
    ) -> Result<Object, serde_json::Error> {
        let defaults = self.defaults.read().expect("no panic while locked").clone();
        Object::from_stored(key, stored, revision, &self.fields, defaults.as_deref())
    }

    /// Sets the schema whose defaults objects are read with. True when it is another one than
    /// before: what is here already has to be loaded again.
    pub fn set_defaults(&self, schema: Option<Arc<Value>>) -> bool {
        let mut defaults = self.defaults.write().expect("no panic while locked");
        let is_new = *defaults != schema;
        *defaults = schema;
        is_new
    }

    /// Ends all watches once they have seen what is there.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Returns when the cache has been [ended](Self::end).
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("no panic while the cache is locked")
    }

    /// Takes in a write. Values that are not JSON are logged and skipped.
    pub fn put(&self, key: &str, stored: &[u8], revision: i64) {
        let object = match self.decode(key, stored, revision) {
            Ok(object) => Arc::new(object),
            Err(error) => {
                tracing::error!(prefix = self.prefix, key, %error, "a stored object is not JSON");
                return;
            }
        };
        let mut state = self.state.write().expect("no panic while the cache is locked");
        let previous = state.objects.insert(key.into(), object.clone());
        if previous.as_ref().is_some_and(|p| p.revision >= revision) {
            return;
        }
        state.push(Event { revision, object, previous, deleted: false, at: Instant::now() });
        let end = state.first + state.history.len() as u64;
        drop(state);
        self.grown.send_replace(end);
    }

    /// Takes in a deletion.
    pub fn delete(&self, key: &str, revision: i64) {
        let mut state = self.state.write().expect("no panic while the cache is locked");
        let Some(previous) = state.objects.remove(key) else { return };
        let object = Arc::new(previous.at_revision(revision));
        let previous = Some(previous);
        state.push(Event { revision, object, previous, deleted: true, at: Instant::now() });
        let end = state.first + state.history.len() as u64;
        drop(state);
        self.grown.send_replace(end);
    }

    /// Fills the cache with what the store held at a revision, before anyone reads it, or again
    /// when objects are to be read another way. Watchers are not told.
    pub fn load(&self, key: &str, stored: &[u8], object_revision: i64) {
        match self.decode(key, stored, object_revision) {
            Ok(object) => {
                let mut state = self.state.write().expect("no panic while the cache is locked");
                state.objects.insert(key.into(), Arc::new(object));
            }
            Err(error) => {
                tracing::error!(prefix = self.prefix, key, %error, "a stored object is not JSON");
            }
        }
    }

    /// Forgets everything, before anyone reads.
    pub fn clear(&self) {
        *self.state.write().expect("no panic while the cache is locked") = State::default();
    }

    /// Declares what was loaded to be the state at a revision: watches can start from there.
    pub fn loaded(&self, revision: i64) {
        let mut state = self.state.write().expect("no panic while the cache is locked");
        state.floor = revision;
        state.last_revision = revision;
    }

    /// Key and revision of every object.
    pub fn revisions(&self) -> Vec<(Box<str>, i64)> {
        self.read().objects.iter().map(|(k, o)| (k.clone(), o.revision)).collect()
    }

    /// One object by its key behind the prefix.
    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.read().objects.get(key).cloned()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Grows with every change.
    pub fn generation(&self) -> u64 {
        *self.grown.borrow()
    }

    /// The objects that match, at most `limit` (0: all), starting at key `from`.
    /// `applied` is a revision that the cache is known to have reached.
    pub fn list(&self, filter: &Filter, from: Option<&str>, limit: usize, applied: i64) -> Found {
        let state = self.read();
        let revision = applied.max(state.last_revision);
        let start = match (&filter.namespace, from) {
            (_, Some(from)) => from.to_owned(),
            (Some(namespace), None) => format!("{namespace}/"),
            (None, None) => String::new(),
        };
        let end = filter.namespace.as_ref().map(|n| format!("{n}0"));
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = Found { objects: Vec::new(), revision, remaining: None, more: false };
        if matches!(upper, Bound::Excluded(end) if start.as_str() >= end) {
            return found;
        }
        let mut range = state.objects.range::<str, _>((Bound::Included(start.as_str()), upper));
        for (_, object) in range.by_ref() {
            if !filter.matches(object) {
                continue;
            }
            if limit > 0 && found.objects.len() == limit {
                found.more = true;
                found.remaining = (!filter.is_selective()).then(|| 1 + range.count());
                break;
            }
            found.objects.push(object.clone());
        }
        found
    }

    /// Where a watch from behind a revision starts in the history.
    pub fn cursor_after(&self, revision: i64) -> Result<u64, TooOld> {
        let state = self.read();
        if revision < state.floor {
            return Err(TooOld { oldest: state.floor });
        }
        let skip = state.history.partition_point(|e| e.revision <= revision);
        Ok(state.first + skip as u64)
    }

    /// Up to `max` events from a place in the history on, and moves it behind them.
    pub fn events(&self, cursor: &mut u64, max: usize) -> Result<Vec<Event>, TooOld> {
        let state = self.read();
        let Some(skip) = cursor.checked_sub(state.first) else {
            return Err(TooOld { oldest: state.floor });
        };
        let events: Vec<_> = state.history.iter().skip(skip as usize).take(max).cloned().collect();
        *cursor += events.len() as u64;
        Ok(events)
    }

    /// Tells when the history grows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({
            "metadata": {"name": name, "namespace": "ns", "labels": {"app": name}},
            "spec": {"nodeName": node},
        }))
        .unwrap()
    }

    fn cache() -> ResourceCache {
        let node =
            Field { name: "spec.nodeName".into(), pointer: "/spec/nodeName".into(), absent: "" };
        ResourceCache::new("/registry/pods".into(), vec![node], 10)
    }

    #[test]
    fn lists_are_filtered_and_cut() {
        let cache = cache();
        for (i, name) in ["a", "b", "c"].iter().enumerate() {
            cache.put(&format!("ns/{name}"), &pod(name, "n1"), 11 + i as i64);
        }
        let all = cache.list(&Filter::default(), None, 2, 12);
        assert_eq!(
            (all.objects.len(), all.more, all.remaining, all.revision),
            (2, true, Some(1), 13)
        );
        let other = Filter { namespace: Some("n".into()), ..Filter::default() };
        assert!(cache.list(&other, None, 0, 0).objects.is_empty());
        let labels = machinery::LabelSelector::parse("app=b").unwrap();
        let one = Filter { labels, ..Filter::default() };
        assert_eq!(cache.list(&one, None, 0, 0).objects[0].key(), "ns/b");
    }

    #[test]
    fn history_is_replayed_from_a_revision_and_refused_below_its_floor() {
        let cache = cache();
        cache.put("ns/a", &pod("a", ""), 11);
        cache.put("ns/a", &pod("a", "n1"), 12);
        cache.delete("ns/a", 15);
        let mut cursor = cache.cursor_after(11).unwrap();
        let events = cache.events(&mut cursor, 10).unwrap();
        assert_eq!(events.iter().map(|e| e.revision).collect::<Vec<_>>(), [12, 15]);
        assert!(events[1].deleted);
        assert!(
            String::from_utf8_lossy(&events[1].object.json).contains("\"resourceVersion\":\"15\"")
        );
        assert!(cache.cursor_after(9).is_err());
        for i in 0..2 * HISTORY_MAX as i64 {
            cache.put("ns/b", &pod("b", ""), 100 + i);
        }
        let mut old = 0;
        assert!(cache.events(&mut old, 1).is_err());
    }
}
