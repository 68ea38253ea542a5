//! Fills the caches from etcd: one consistent read of everything, then one watch of everything.
//!
//! When the watch breaks it is taken up behind the last revision seen. When that revision has
//! been compacted meanwhile, the caches are compared with a fresh read, and watchers are told the
//! differences as if they had happened at the read's revision.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_api::pb::etcdserverpb::watch_request::RequestUnion;
use etcd_api::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use etcd_api::pb::mvccpb::event::EventType;
use machinery::{Reason, Status};
use tokio_util::sync::CancellationToken;

use super::Caches;
use crate::kinds::Table;
use crate::kinds::custom;
use crate::store::{ROOT, Store};

const PAGE: i64 = 1000;
/// How many revisions a start goes back.
const REPLAY: i64 = 1000;
const RETRY: Duration = Duration::from_millis(200);
/// How often it is checked that the watch keeps up with the store.
const CHECK: Duration = Duration::from_secs(5);

/// What the feed writes to.
pub struct Feed {
    /// The store that it reads.
    pub store: Arc<Store>,
    /// The caches that it fills.
    pub caches: Arc<Caches>,
    /// The rows, which custom resource definitions change.
    pub table: Arc<Table>,
}

enum Broken {
    /// The stream ended: go on from the last revision.
    Again(String),
    /// The last revision is no longer there: compare with a fresh read.
    Compacted,
}

impl Feed {
    /// Loads everything, as of a moment a little in the past if the store still knows it: what has
    /// happened since then is replayed by [`Feed::follow`], so that clients of a server that was
    /// here before can go on watching from where they were. Returns the store's revision, which
    /// the caches have to reach before they may be read.
    pub async fn load(&self) -> Result<i64, Status> {
        let now = self.store.current_revision().await?;
        let past = (now - REPLAY).max(1);
        match self.load_at(past).await {
            Err(status) if status.reason == Reason::Expired => self.load_at(now).await?,
            outcome => outcome?,
        }
        Ok(now)
    }

    async fn load_at(&self, revision: i64) -> Result<(), Status> {
        for cache in self.caches.all() {
            cache.clear();
        }
        let definitions = format!("{}/", custom::DEFINITIONS_PREFIX);
        self.load_range(&definitions, revision).await?;
        custom::refresh(&self.table, &self.caches, revision);
        self.load_range(&format!("{ROOT}/"), revision).await?;
        for cache in self.caches.all() {
            cache.loaded(revision);
        }
        self.caches.advance(revision);
        Ok(())
    }

    async fn load_range(&self, prefix: &str, revision: i64) -> Result<(), Status> {
        let mut from = prefix.to_owned();
        loop {
            let page = self.store.range(prefix, &from, PAGE, revision).await?;
            for kv in &page.kvs {
                let key = String::from_utf8_lossy(&kv.key);
                if let Some((cache, rest)) = self.caches.route(&key) {
                    cache.load(rest, &kv.value, kv.mod_revision);
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => {
                    from = String::from_utf8_lossy(&last.key).into_owned() + "\0";
                }
                _ => return Ok(()),
            }
        }
    }

    /// Follows the store until the token is cancelled. Call after [`Feed::load`].
    pub async fn follow(self, stop: CancellationToken) {
        loop {
            let broken = tokio::select! {
                () = stop.cancelled() => return,
                broken = self.watch() => broken,
                () = self.fall_behind() => Broken::Again("it does not keep up".to_owned()),
            };
            match broken {
                Broken::Again(why) => tracing::info!(why, "the watch of the store ended; resuming"),
                Broken::Compacted => {
                    tracing::warn!("fell behind the store's compaction; reading everything again");
                    if let Err(error) = self.reload().await {
                        tracing::warn!(%error, "reading the store failed");
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Returns when the caches have stayed behind the store for a whole check interval: the watch
    /// then hangs on a member that is cut off, and another one has to be asked.
    async fn fall_behind(&self) {
        loop {
            tokio::time::sleep(CHECK).await;
            let Ok(wanted) = self.store.current_revision().await else { continue };
            let mut applied = self.caches.applied.subscribe();
            let reached = applied.wait_for(|revision| *revision >= wanted);
            if tokio::time::timeout(CHECK, reached).await.is_err() {
                return;
            }
        }
    }

    async fn watch(&self) -> Broken {
        let create = WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            start_revision: self.caches.revision() + 1,
            ..WatchCreateRequest::default()
        };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The request side stays open as long as the watch is wanted.
        let (sender, requests) = tokio::sync::mpsc::channel(1);
        if sender.send(request).await.is_err() {
            return Broken::Again("request stream closed".into());
        }
        let stream = tokio_stream::wrappers::ReceiverStream::new(requests);
        let mut requests = tonic::Request::new(stream);
        // A member without a leader ends the watch instead of keeping it silent.
        requests
            .metadata_mut()
            .insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
        let mut responses = match self.store.client().watch().watch(requests).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Broken::Again(status.message().to_owned()),
        };
        loop {
            match responses.message().await {
                Ok(Some(response)) if response.compact_revision > 0 => return Broken::Compacted,
                Ok(Some(response)) if response.canceled => {
                    return Broken::Again(response.cancel_reason);
                }
                Ok(Some(response)) => self.apply(response).await,
                Ok(None) => return Broken::Again("closed by the store".into()),
                Err(status) => return Broken::Again(status.message().to_owned()),
            }
        }
    }

    async fn apply(&self, response: WatchResponse) {
        let mut definitions_changed = false;
        let mut last = 0;
        for event in response.events {
            let Some(kv) = event.kv else { continue };
            last = kv.mod_revision;
            let Ok(key) = std::str::from_utf8(&kv.key) else { continue };
            let Some((cache, rest)) = self.caches.route(key) else { continue };
            if event.r#type == EventType::Delete as i32 {
                cache.delete(rest, kv.mod_revision);
            } else {
                cache.put(rest, &kv.value, kv.mod_revision);
            }
            definitions_changed |= cache.prefix == custom::DEFINITIONS_PREFIX;
        }
        if definitions_changed {
            self.serve_definitions(last).await;
        }
        if last > 0 {
            self.caches.advance(last);
        }
    }

    /// Makes rows and caches of custom resource definitions that are new or have changed.
    async fn serve_definitions(&self, revision: i64) {
        for prefix in custom::refresh(&self.table, &self.caches, revision) {
            if let Err(error) = self.load_range(&format!("{prefix}/"), revision).await {
                tracing::warn!(prefix, %error, "reading custom resources failed");
            }
        }
    }

    async fn reload(&self) -> Result<(), Status> {
        let revision = self.store.current_revision().await?;
        for cache in self.caches.all() {
            let prefix = format!("{}/", cache.prefix);
            let mut gone: HashSet<Box<str>> = HashSet::new();
            let known = cache.revisions();
            gone.extend(known.iter().map(|(key, _)| key.clone()));
            let mut changed = Vec::new();
            let mut from = prefix.clone();
            loop {
                let page = self.store.range(&prefix, &from, PAGE, revision).await?;
                let next = page.kvs.last().map(|kv| String::from_utf8_lossy(&kv.key) + "\0");
                from = next.map(|n| n.into_owned()).unwrap_or_default();
                for kv in page.kvs {
                    let Ok(key) = std::str::from_utf8(&kv.key[prefix.len()..]) else { continue };
                    gone.remove(key);
                    let is_known = cache.get(key).is_some_and(|o| o.revision == kv.mod_revision);
                    if !is_known {
                        changed.push((kv.mod_revision, key.to_owned(), kv.value));
                    }
                }
                if !page.more {
                    break;
                }
            }
            changed.sort_by_key(|(revision, ..)| *revision);
            for (object_revision, key, value) in changed {
                cache.put(&key, &value, object_revision);
            }
            for key in gone {
                cache.delete(&key, revision);
            }
        }
        self.serve_definitions(revision).await;
        self.caches.advance(revision);
        Ok(())
    }
}
