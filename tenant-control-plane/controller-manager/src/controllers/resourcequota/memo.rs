//! What the objects of a cache count for, read once per version of each object.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use component::{Informer, Object};
use machinery::GroupResource;
use machinery::quota::Counted;
use serde::Serialize;

type Known = HashMap<String, (Option<String>, Arc<Counted>)>;

/// See the module documentation. Only namespaces that were asked for take memory.
pub(super) struct Memo<K> {
    cache: Arc<Informer<K>>,
    resource: GroupResource,
    /// By namespace and uid, with the resource version.
    known: Mutex<HashMap<String, Known>>,
}

impl<K: Object + Serialize> Memo<K> {
    /// A memo of a core kind.
    pub(super) fn new(cache: Arc<Informer<K>>, plural: &str) -> Self {
        let resource = GroupResource::new("", plural);
        Self { cache, resource, known: Mutex::new(HashMap::new()) }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().expect("no code panics while it holds this lock")
    }

    /// The objects of a namespace.
    ///
    /// # Errors
    /// When an object cannot be written as JSON.
    pub(super) fn list(&self, namespace: &str) -> serde_json::Result<Vec<Arc<Counted>>> {
        let mut before = self.known().remove(namespace).unwrap_or_default();
        let mut now = Known::new();
        let mut list = Vec::new();
        for object in self.cache.list_namespace(namespace) {
            let version = object.meta().resource_version.clone();
            let uid = object.meta().uid.clone().unwrap_or_default();
            let counted = match before.remove(&uid) {
                Some((seen, counted)) if seen == version => counted,
                _ => {
                    let value = serde_json::to_value(object.as_ref())?;
                    Arc::new(Counted::of(&self.resource, &value))
                }
            };
            list.push(counted.clone());
            now.insert(uid, (version, counted));
        }
        self.known().insert(namespace.to_owned(), now);
        Ok(list)
    }

    /// Frees the memory of a namespace.
    pub(super) fn forget(&self, namespace: &str) {
        self.known().remove(namespace);
    }
}
