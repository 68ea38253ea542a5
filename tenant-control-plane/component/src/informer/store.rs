//! The objects of one kind, with indexes and the rule for which copy is newer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Object, ObjectKey};

/// How long a deletion is remembered, so that a late answer to an earlier write cannot bring the
/// object back. Longer than any request lasts.
const TOMBSTONE_AGE: Duration = Duration::from_secs(90);

struct Index<K> {
    name: &'static str,
    keys: fn(&K) -> Vec<String>,
    entries: HashMap<String, BTreeSet<ObjectKey>>,
}

/// See the module documentation.
pub(super) struct Store<K> {
    pub(super) objects: BTreeMap<ObjectKey, Arc<K>>,
    indexes: Vec<Index<K>>,
    /// Deleted uids with the time of their deletion.
    tombstones: HashMap<String, Instant>,
    /// Objects that this process wrote while a list was under way: the list may not have them.
    pub(super) written_during_list: Option<BTreeSet<ObjectKey>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            indexes: Vec::new(),
            tombstones: HashMap::new(),
            written_during_list: None,
        }
    }
}

/// An object's resource version as a number, if it is one.
fn version<K: Object>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

impl<K: Object> Store<K> {
    pub(super) fn add_index(&mut self, name: &'static str, keys: fn(&K) -> Vec<String>) {
        if self.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, keys, entries: HashMap::new() };
        for (key, object) in &self.objects {
            for value in keys(object) {
                index.entries.entry(value).or_default().insert(key.clone());
            }
        }
        self.indexes.push(index);
    }

    pub(super) fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let index = self.indexes.iter().find(|index| index.name == name);
        let index = index.unwrap_or_else(|| panic!("there is no index {name}"));
        let keys = index.entries.get(value).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key).cloned()).collect()
    }

    /// Takes the object if it is newer than what is held. Returns whether it was taken, and what
    /// was held before.
    pub(super) fn apply(&mut self, object: Arc<K>, local: bool) -> (bool, Option<Arc<K>>) {
        let key = ObjectKey::of(object.as_ref());
        if local && object.meta().uid.as_ref().is_some_and(|uid| self.tombstones.contains_key(uid))
        {
            return (false, None);
        }
        let held = self.objects.get(&key);
        if let (Some(held), Some(new)) = (held, version(object.as_ref()))
            && version(held.as_ref()).is_some_and(|old| old >= new)
        {
            return (false, None);
        }
        if local && let Some(written) = &mut self.written_during_list {
            written.insert(key.clone());
        }
        (true, self.put(key, object))
    }

    /// Forgets the object and remembers its deletion. Returns what was held.
    pub(super) fn remove(&mut self, object: &K) -> Option<Arc<K>> {
        let now = Instant::now();
        self.tombstones.retain(|_, at| now.duration_since(*at) < TOMBSTONE_AGE);
        if let Some(uid) = &object.meta().uid {
            self.tombstones.insert(uid.clone(), now);
        }
        let key = ObjectKey::of(object);
        // A newer object of the same name stays.
        let held = self.objects.get(&key)?;
        if held.meta().uid != object.meta().uid {
            return None;
        }
        self.take(&key)
    }

    /// Replaces everything by a list. Returns the changes as (old, new), and the keys that were
    /// kept only because this process wrote them while the list was under way.
    #[allow(clippy::type_complexity)]
    pub(super) fn replace(
        &mut self,
        listed: Vec<Arc<K>>,
    ) -> (Vec<(Option<Arc<K>>, Option<Arc<K>>)>, Vec<ObjectKey>) {
        let written = self.written_during_list.take().unwrap_or_default();
        let present: BTreeSet<_> = listed.iter().map(|o| ObjectKey::of(o.as_ref())).collect();
        let mut changes = Vec::new();
        let mut unsure = Vec::new();
        let absent: Vec<_> =
            self.objects.keys().filter(|key| !present.contains(key)).cloned().collect();
        for key in absent {
            if written.contains(&key) {
                unsure.push(key);
            } else if let Some(old) = self.take(&key) {
                changes.push((Some(old), None));
            }
        }
        for object in listed {
            let held = self.objects.get(&ObjectKey::of(object.as_ref())).cloned();
            let replaced = held.is_some_and(|held| held.meta().uid != object.meta().uid);
            if replaced && let Some(old) = self.take(&ObjectKey::of(object.as_ref())) {
                changes.push((Some(old), None));
            }
            let (taken, old) = self.apply(object.clone(), false);
            if taken {
                changes.push((old, Some(object)));
            }
        }
        (changes, unsure)
    }

    fn put(&mut self, key: ObjectKey, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.take(&key);
        for index in &mut self.indexes {
            for value in (index.keys)(&object) {
                index.entries.entry(value).or_default().insert(key.clone());
            }
        }
        self.objects.insert(key, object);
        old
    }

    pub(super) fn take(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in &mut self.indexes {
            for value in (index.keys)(&old) {
                if let Some(keys) = index.entries.get_mut(&value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        index.entries.remove(&value);
                    }
                }
            }
        }
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn object(name: &str, uid: &str, version: u64) -> Arc<ConfigMap> {
        Arc::new(ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                name: Some(name.into()),
                uid: Some(uid.into()),
                resource_version: Some(version.to_string()),
                ..Default::default()
            },
            ..Default::default()
        })
    }

    #[test]
    fn an_older_copy_never_replaces_a_newer_one() {
        let mut store = Store::default();
        assert!(store.apply(object("a", "1", 9), true).0);
        assert!(!store.apply(object("a", "1", 8), false).0);
        assert!(!store.apply(object("a", "1", 9), false).0);
        assert!(store.apply(object("a", "1", 10), false).0);
    }

    #[test]
    fn a_late_answer_does_not_revive_a_deleted_object() {
        let mut store = Store::default();
        store.apply(object("a", "1", 5), false);
        assert!(store.remove(&object("a", "1", 6)).is_some());
        assert!(!store.apply(object("a", "1", 5), true).0);
        assert!(store.apply(object("a", "2", 7), true).0, "another object of that name may come");
        assert!(store.remove(&object("a", "1", 6)).is_none(), "and a late deletion spares it");
    }

    #[test]
    fn a_list_keeps_what_was_written_meanwhile() {
        let mut store = Store::default();
        store.apply(object("gone", "1", 1), false);
        store.written_during_list = Some(BTreeSet::new());
        store.apply(object("mine", "2", 7), true);
        let (changes, unsure) = store.replace(vec![object("listed", "3", 4)]);
        assert_eq!(unsure, [ObjectKey::new("ns", "mine")]);
        assert_eq!(changes.len(), 2);
        let names: Vec<_> = store.objects.keys().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["listed", "mine"]);
    }

    #[test]
    fn indexes_follow_changes() {
        let mut store = Store::default();
        store.apply(object("a", "1", 1), false);
        store.add_index("uid", |o: &ConfigMap| o.metadata.uid.clone().into_iter().collect());
        assert_eq!(store.by_index("uid", "1").len(), 1);
        store.apply(object("a", "2", 2), false);
        assert!(store.by_index("uid", "1").is_empty());
        assert_eq!(store.by_index("uid", "2").len(), 1);
    }
}
