//! A cache for tests: objects in a map.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use machinery::{GroupResource, ObjectSource, UserInfo};
use serde_json::Value;

/// Objects by resource, namespace and name.
#[derive(Default)]
pub struct Objects {
    map: Mutex<BTreeMap<(GroupResource, String, String), Arc<Value>>>,
    generation: AtomicU64,
}

impl Objects {
    /// Stores an object under the resource of its kind.
    pub fn put(&self, object: Value) {
        let key = key(&object);
        self.map.lock().unwrap().insert(key, Arc::new(object));
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

fn key(object: &Value) -> (GroupResource, String, String) {
    let version = object["apiVersion"].as_str().unwrap_or("v1");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = object["kind"].as_str().unwrap().to_ascii_lowercase();
    let plural = if kind.ends_with('s') { format!("{kind}es") } else { format!("{kind}s") };
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    (GroupResource::new(group, plural), text("namespace"), text("name"))
}

impl ObjectSource for Objects {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = (resource.clone(), namespace.to_owned(), name.to_owned());
        self.map.lock().unwrap().get(&key).cloned()
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let map = self.map.lock().unwrap();
        map.iter()
            .filter(|((r, ns, _), _)| r == resource && namespace.is_none_or(|n| n == ns))
            .map(|(_, object)| object.clone())
            .collect()
    }

    fn generation(&self, _resource: &GroupResource) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}

/// A user of some groups.
pub fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.into(),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        ..UserInfo::default()
    }
}
