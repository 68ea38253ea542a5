//! The watch cache: everything that the store holds below `/registry`, once, in memory.
//!
//! One etcd watch over the whole key space feeds every resource ([`feed`]), so that the cache has
//! one revision: after event N, every resource is as of N. A consistent read asks etcd for its
//! revision (one small read for all readers that wait at that moment) and waits until the cache
//! has reached it. Watchers share each resource's history ([`resource`]) and hold only a position
//! in it; one who falls behind the history is told so and starts over.

pub mod feed;
pub mod object;
pub mod resource;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use machinery::{GroupResource, ObjectSource, Reason, Status};
use serde_json::Value;
use tokio::sync::watch;

pub use object::{Filter, Object};
pub use resource::{Event, Found, ResourceCache, TooOld};

use crate::kinds::{Row, Table};
use crate::store::Store;

/// How long a consistent read waits for the cache before it gives up.
const FRESHNESS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a writer waits for the cache to see its own write.
const ECHO_TIMEOUT: Duration = Duration::from_millis(250);

/// The caches of all resources.
pub struct Caches {
    store: Arc<Store>,
    by_prefix: RwLock<BTreeMap<String, Arc<ResourceCache>>>,
    by_resource: RwLock<BTreeMap<GroupResource, Arc<ResourceCache>>>,
    applied: watch::Sender<i64>,
}

impl Caches {
    /// Caches for every stored row of the table, all empty until [`feed::start`] fills them.
    pub fn new(store: Arc<Store>, table: &Table) -> Arc<Self> {
        let caches = Arc::new(Self {
            store,
            by_prefix: RwLock::default(),
            by_resource: RwLock::default(),
            applied: watch::Sender::new(0),
        });
        for row in table.snapshot().rows() {
            caches.add(row, table, 0);
        }
        caches
    }

    /// Makes the cache of a row unless its prefix has one that indexes the same fields. True when
    /// it is new; watches of the one before end.
    pub fn add(&self, row: &Row, table: &Table, revision: i64) -> bool {
        let Some(prefix) = row.prefix.as_deref() else { return false };
        let rows = table.snapshot();
        let same = rows.rows().iter().filter(|r| r.prefix.as_deref() == Some(prefix));
        let mut fields: Vec<_> = same.flat_map(|r| r.fields.iter().cloned()).collect();
        if fields.is_empty() {
            fields = row.fields.clone();
        }
        let mut by_prefix = self.by_prefix.write().expect("no panic while locked");
        let known = by_prefix.get(prefix).filter(|cache| cache.fields == fields).cloned();
        let is_new = known.is_none();
        let cache = known
            .unwrap_or_else(|| Arc::new(ResourceCache::new(prefix.to_owned(), fields, revision)));
        if let Some(before) = by_prefix.get(prefix).filter(|before| !Arc::ptr_eq(before, &cache)) {
            before.end();
        }
        by_prefix.insert(prefix.to_owned(), cache.clone());
        let mut by_resource = self.by_resource.write().expect("no panic while locked");
        by_resource.insert(row.group_resource(), cache);
        is_new
    }

    /// Forgets the cache of a row that is served no more.
    pub fn remove(&self, prefix: &str) {
        let mut by_prefix = self.by_prefix.write().expect("no panic while locked");
        if let Some(cache) = by_prefix.remove(prefix) {
            cache.end();
            let mut by_resource = self.by_resource.write().expect("no panic while locked");
            by_resource.retain(|_, c| !Arc::ptr_eq(c, &cache));
        }
    }

    /// The cache of a row.
    pub fn of(&self, row: &Row) -> Option<Arc<ResourceCache>> {
        self.at_prefix(row.prefix.as_deref()?)
    }

    /// The cache of a resource.
    pub fn resource(&self, resource: &GroupResource) -> Option<Arc<ResourceCache>> {
        self.by_resource.read().expect("no panic while locked").get(resource).cloned()
    }

    fn at_prefix(&self, prefix: &str) -> Option<Arc<ResourceCache>> {
        self.by_prefix.read().expect("no panic while locked").get(prefix).cloned()
    }

    /// All caches.
    pub fn all(&self) -> Vec<Arc<ResourceCache>> {
        self.by_prefix.read().expect("no panic while locked").values().cloned().collect()
    }

    /// The cache that a store key belongs to, and the part of the key behind its prefix.
    fn route<'k>(&self, key: &'k str) -> Option<(Arc<ResourceCache>, &'k str)> {
        // `/registry/<resource>/...` or, for resources with a group in their prefix,
        // `/registry/<group>/<resource>/...`.
        let mut slashes = key.match_indices('/').map(|(at, _)| at).skip(2);
        let by_prefix = self.by_prefix.read().expect("no panic while locked");
        for _ in 0..2 {
            let at = slashes.next()?;
            if let Some(cache) = by_prefix.get(&key[..at]) {
                return Some((cache.clone(), &key[at + 1..]));
            }
        }
        None
    }

    /// The revision up to which every change is in the caches.
    pub fn revision(&self) -> i64 {
        *self.applied.borrow()
    }

    fn advance(&self, revision: i64) {
        self.applied.send_if_modified(|applied| {
            let newer = revision > *applied;
            *applied = revision.max(*applied);
            newer
        });
    }

    /// Waits until the caches hold everything that was written before this call.
    pub async fn catch_up(&self) -> Result<i64, Status> {
        let wanted = self.store.current_revision().await?;
        self.reach(wanted).await
    }

    /// Waits until the caches have reached a revision; 504 when that takes too long.
    pub async fn reach(&self, wanted: i64) -> Result<i64, Status> {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|revision| *revision >= wanted);
        match tokio::time::timeout(FRESHNESS_TIMEOUT, reached).await {
            Ok(Ok(revision)) => Ok(*revision),
            _ => {
                let text = format!(
                    "Timeout: Too large resource version: {wanted}, current: {}",
                    self.revision()
                );
                let mut status = Status::new(Reason::Timeout, text);
                status.details = serde_json::json!({
                    "retryAfterSeconds": 1,
                    "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                });
                Err(status)
            }
        }
    }

    /// Waits a moment for a write of this server to come back through the watch, so that the next
    /// request sees it in everything that reads the caches. Gives up silently.
    pub async fn echo(&self, revision: i64) {
        let mut applied = self.applied.subscribe();
        let seen = applied.wait_for(|applied| *applied >= revision);
        let _ = tokio::time::timeout(ECHO_TIMEOUT, seen).await;
    }
}

impl ObjectSource for Caches {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let cache = self.resource(resource)?;
        let object = match namespace {
            "" => cache.get(name),
            _ => cache.get(&format!("{namespace}/{name}")),
        };
        object.map(|o| o.value())
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let Some(cache) = self.resource(resource) else { return Vec::new() };
        let filter = Filter::all(namespace);
        cache.list(&filter, None, 0, 0).objects.iter().map(|o| o.value()).collect()
    }

    fn generation(&self, resource: &GroupResource) -> u64 {
        self.resource(resource).map_or(0, |cache| cache.generation())
    }
}
