//! A cache for tests: objects in a map.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderName, HeaderValue};
use machinery::{GroupResource, ObjectSource, RequestInfo, UserInfo};
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

    /// Removes it.
    pub fn remove(&self, object: &Value) {
        self.map.lock().unwrap().remove(&key(object));
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
#[allow(dead_code, reason = "not every test file needs it")]
pub fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.into(),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        ..UserInfo::default()
    }
}

/// `get core/pods/log in ns of name`, written as `get|core|pods/log|ns|name`.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn request(text: &str) -> RequestInfo {
    let mut parts = text.split('|');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (verb, group, resource, namespace, name) = (next(), next(), next(), next(), next());
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
        None => (resource, String::new()),
    };
    RequestInfo {
        is_resource_request: true,
        verb,
        group: if group == "core" { String::new() } else { group },
        version: "v1".into(),
        namespace,
        resource,
        subresource,
        name,
        ..RequestInfo::default()
    }
}

/// Headers of a request.
pub fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}
