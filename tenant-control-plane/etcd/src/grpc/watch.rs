//! Watch streams.
//!
//! One task per stream owns all of its watchers and is the only one that sends on it, so what a
//! client sees of one watcher is: created, then the past, then the present, in order of revision.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::watch_create_request::FilterType;
use etcd_api::pb::etcdserverpb::watch_request::RequestUnion;
use etcd_api::pb::etcdserverpb::watch_server::Watch;
use etcd_api::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use etcd_api::pb::mvccpb::event::EventType;
use etcd_api::pb::mvccpb::{Event, KeyValue};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Answer;
use super::caller::Credentials;
use crate::access::grants::Access;
use crate::machine::read::{Past, damaged};
use crate::metrics::Counted;
use crate::mvcc::history::Version;
use crate::mvcc::index::KeyRange;
use crate::mvcc::range::key_value;
use crate::mvcc::store;
use crate::node::Node;
use crate::watch::hub::{Item, Queue};

/// Responses that may wait for a slow client in this process.
const OUT: usize = 16;
/// Queue items that are handled, and merged, at once.
const ITEMS: usize = 256;
/// A response is sent when it holds this much, at the end of a revision.
const RESPONSE_BYTES: usize = 1 << 20;
/// The watch id of what concerns all watchers of a stream, or none.
const NO_WATCH: i64 = -1;

/// The Watch service.
pub struct WatchService {
    /// The member.
    pub node: Arc<Node>,
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(&self, r: Request<Streaming<WatchRequest>>) -> Answer<Self::WatchStream> {
        let needs_leader = r.metadata().get("hasleader").is_some_and(|v| v == "true");
        let credentials = Credentials::of(&r);
        let (out, rx) = mpsc::channel(OUT);
        let stream = Stream {
            queue: self.node.machine.hub.open_stream(),
            node: Arc::clone(&self.node),
            credentials,
            out,
            watchers: HashMap::new(),
            by_hub: HashMap::new(),
            next_id: 0,
            progress_owed: false,
        };
        tokio::spawn(stream.run(r.into_inner(), needs_leader));
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}

struct Watcher {
    hub: u64,
    range: KeyRange,
    /// Of revisions below it nothing is told, not even that they have passed.
    from: i64,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
    /// Nothing was sent since the last periodic progress.
    quiet: bool,
}

struct Stream {
    node: Arc<Node>,
    credentials: Credentials,
    queue: Queue,
    out: mpsc::Sender<Result<WatchResponse, Status>>,
    watchers: HashMap<i64, Watcher>,
    by_hub: HashMap<u64, i64>,
    next_id: i64,
    /// The client asked for progress and could not be answered yet.
    progress_owed: bool,
}

/// The client is gone.
struct Gone;

impl Stream {
    async fn run(mut self, mut requests: Streaming<WatchRequest>, needs_leader: bool) {
        let mut items = Vec::with_capacity(16);
        let mut leaderless = self.node.leaderless.subscribe();
        let mut corrupt = self.node.corrupt.subscribe();
        let interval = self.node.config.progress_interval;
        let mut clock = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        let mut asks = true;
        loop {
            let going_on = tokio::select! {
                request = requests.message(), if asks => match request {
                    Ok(Some(r)) => self.on_request(r).await,
                    // It has no more to ask, and still listens.
                    Ok(None) => {
                        asks = false;
                        Ok(())
                    }
                    Err(_) => break,
                },
                n = self.queue.rx.recv_many(&mut items, ITEMS) => {
                    if n == 0 {
                        break;
                    }
                    self.on_items(&mut items).await
                }
                _ = clock.tick() => {
                    self.node.machine.hub.mark_progress(self.queue.id, true);
                    Ok(())
                }
                () = raised(&mut corrupt) => {
                    let _ = self.out.send(Err(EtcdError::Corrupt.into())).await;
                    break;
                }
                () = raised(&mut leaderless), if needs_leader => {
                    let _ = self.out.send(Err(EtcdError::NoLeader.into())).await;
                    break;
                }
                () = self.out.closed() => break,
            };
            if going_on.is_err() || self.catch_up().await.is_err() {
                break;
            }
        }
        for watcher in self.watchers.values() {
            self.node.machine.hub.cancel(watcher.hub);
        }
        self.node.machine.hub.close_stream(self.queue.id);
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Gone> {
        self.out.send(Ok(response)).await.map_err(|_| Gone)
    }

    fn response(&self, watch_id: i64, revision: i64) -> WatchResponse {
        WatchResponse { header: Some(self.node.header(revision)), watch_id, ..Default::default() }
    }

    async fn on_request(&mut self, r: WatchRequest) -> Result<(), Gone> {
        match r.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                let Some(watcher) = self.forget(cancel.watch_id) else {
                    return Ok(());
                };
                self.node.machine.hub.cancel(watcher.hub);
                let mut response =
                    self.response(cancel.watch_id, self.node.machine.hub.published());
                response.canceled = true;
                self.send(response).await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_owed = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn forget(&mut self, watch_id: i64) -> Option<Watcher> {
        let watcher = self.watchers.remove(&watch_id)?;
        self.by_hub.remove(&watcher.hub);
        Some(watcher)
    }

    async fn refuse(&self, reason: &str) -> Result<(), Gone> {
        let mut response = self.response(NO_WATCH, self.node.machine.hub.published());
        response.created = true;
        response.canceled = true;
        response.cancel_reason = reason.to_owned();
        self.send(response).await
    }

    /// Refuses keys that whoever opened the stream may not read now.
    async fn check_access(&self, r: &WatchCreateRequest) -> Result<(), Status> {
        self.node.must_be_sound()?;
        if !self.node.machine.is_guarded() {
            return Ok(());
        }
        let caller = self.credentials.caller(&self.node).await?;
        let access = &self.node.machine.read().access;
        Ok(access.may(caller.as_ref(), Access::Read, &r.key, &r.range_end)?)
    }

    async fn create(&mut self, mut r: WatchCreateRequest) -> Result<(), Gone> {
        if r.key.is_empty() {
            // The smallest key.
            r.key = bytes::Bytes::from_static(&[0]);
        }
        if r.start_revision < 0 {
            return self.refuse(EtcdError::Compacted.text()).await;
        }
        if !r.range_end.is_empty() && r.range_end[..] != [0] && r.key >= r.range_end {
            return self.refuse("mvcc: watcher range is empty").await;
        }
        if let Err(status) = self.check_access(&r).await {
            return self
                .refuse(&format!(
                    "rpc error: code = {:?} desc = {}",
                    status.code(),
                    status.message()
                ))
                .await;
        }
        let watch_id = match r.watch_id {
            0 => {
                while self.watchers.contains_key(&self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                self.next_id - 1
            }
            id if self.watchers.contains_key(&id) => {
                let text = "mvcc: duplicate watch ID provided on the WatchStream";
                return self.refuse(text).await;
            }
            id => id,
        };
        let range = KeyRange::new(&r.key, &r.range_end);
        let hub = &self.node.machine.hub;
        let registered = hub.register(self.queue.id, range.clone(), r.start_revision);
        let watcher = Watcher {
            hub: registered.watcher,
            range,
            from: r.start_revision,
            no_put: r.filters.contains(&(FilterType::Noput as i32)),
            no_delete: r.filters.contains(&(FilterType::Nodelete as i32)),
            prev_kv: r.prev_kv,
            fragment: r.fragment,
            progress_notify: r.progress_notify,
            quiet: true,
        };
        self.by_hub.insert(watcher.hub, watch_id);
        self.watchers.insert(watch_id, watcher);
        let mut created = self.response(watch_id, registered.published);
        created.created = true;
        self.send(created).await?;
        if r.start_revision > 0 && r.start_revision <= registered.published {
            self.send_past(watch_id, r.start_revision, registered.published).await?;
        }
        Ok(())
    }

    async fn on_items(&mut self, items: &mut Vec<Item>) -> Result<(), Gone> {
        // Events of one watcher are merged until a mark comes that everything before must precede.
        let mut pending: Vec<(i64, Vec<Event>)> = Vec::new();
        for item in items.drain(..) {
            match item {
                Item::Events { watcher, revision, matched } => {
                    let Some(watch_id) = self.by_hub.get(&watcher).copied() else {
                        continue;
                    };
                    let events = match self.present(watch_id, &revision, &matched) {
                        Ok(Some(events)) => events,
                        Ok(None) => {
                            self.send_pending(&mut pending).await?;
                            self.cancel_compacted(watch_id).await?;
                            continue;
                        }
                        Err(e) => return self.fail(&e).await,
                    };
                    if events.is_empty() {
                        continue;
                    }
                    match pending.iter_mut().find(|(id, _)| *id == watch_id) {
                        Some((_, all)) => all.extend(events),
                        None => pending.push((watch_id, events)),
                    }
                }
                Item::Progress { revision, periodic } => {
                    self.send_pending(&mut pending).await?;
                    self.send_progress(revision, periodic).await?;
                }
                Item::Wake => {}
            }
        }
        self.send_pending(&mut pending).await
    }

    async fn send_pending(&mut self, pending: &mut Vec<(i64, Vec<Event>)>) -> Result<(), Gone> {
        for (watch_id, events) in pending.drain(..) {
            self.send_events(watch_id, events).await?;
        }
        Ok(())
    }

    async fn send_progress(&mut self, revision: i64, periodic: bool) -> Result<(), Gone> {
        if !periodic {
            // As in etcd, nothing is said about revisions before those that a watch waits for.
            return match self.watchers.values().all(|watcher| watcher.from <= revision) {
                true => self.send(self.response(NO_WATCH, revision)).await,
                false => Ok(()),
            };
        }
        let mut due = Vec::new();
        for (id, watcher) in &mut self.watchers {
            if watcher.progress_notify && watcher.quiet && revision >= watcher.from {
                due.push(*id);
            }
            watcher.quiet = true;
        }
        for id in due {
            self.send(self.response(id, revision)).await?;
        }
        Ok(())
    }

    /// Brings lagging watchers up to date from the store, then pays owed progress.
    async fn catch_up(&mut self) -> Result<(), Gone> {
        while self.queue.rx.is_empty() && self.queue.lag.swap(false, Ordering::AcqRel) {
            let ids: Vec<i64> = self.watchers.keys().copied().collect();
            for id in ids {
                let Some(hub) = self.watchers.get(&id).map(|w| w.hub) else {
                    continue;
                };
                if let Some((from, to)) = self.node.machine.hub.resume(hub) {
                    self.node.metrics.count(Counted::SlowWatcher);
                    self.send_past(id, from, to).await?;
                }
            }
        }
        if self.progress_owed {
            let hub = &self.node.machine.hub;
            self.progress_owed = !hub.mark_progress(self.queue.id, false);
        }
        Ok(())
    }

    /// Events of a revision that was just applied; none if a compaction has removed one of them.
    fn present(
        &self,
        watch_id: i64,
        revision: &store::Revision,
        matched: &[u32],
    ) -> io::Result<Option<Vec<Event>>> {
        let Some(watcher) = self.watchers.get(&watch_id) else {
            return Ok(Some(Vec::new()));
        };
        matched
            .iter()
            .map(|i| &revision.events[*i as usize])
            .filter(|e| wants(watcher, &e.version))
            .map(|e| {
                let before = e.before.as_ref();
                self.event(watcher, &e.key, &e.version, e.value.as_ref(), before)
            })
            .collect()
    }

    /// An event; none if a compaction has removed its value.
    fn event(
        &self,
        watcher: &Watcher,
        key: &[u8],
        version: &Version,
        in_memory: Option<&bytes::Bytes>,
        before: Option<&Version>,
    ) -> io::Result<Option<Event>> {
        let kv = match in_memory {
            _ if version.is_tombstone() => {
                let key = key.to_vec().into();
                Some(KeyValue { key, mod_revision: version.main, ..Default::default() })
            }
            Some(value) => {
                Some(KeyValue { value: value.clone(), ..key_value(key, version, None)? })
            }
            None => self.load(key, version)?,
        };
        let Some(kv) = kv else { return Ok(None) };
        // What a compaction has removed meanwhile is left out, as in etcd.
        let prev_kv = match before.filter(|_| watcher.prev_kv) {
            Some(before) => self.load(key, before)?,
            None => None,
        };
        let kind = if version.is_tombstone() { EventType::Delete } else { EventType::Put };
        Ok(Some(Event { r#type: kind.into(), kv: Some(kv), prev_kv }))
    }

    /// A version with its value; none if a compaction has removed it.
    fn load(&self, key: &[u8], version: &Version) -> io::Result<Option<KeyValue>> {
        let machine = &self.node.machine;
        let files = machine.log.files().as_ref();
        match key_value(key, version, Some(files)) {
            // Its segment is gone: the value is elsewhere, or nowhere.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let now = machine.read().store.find(key, version);
                now.map(|version| key_value(key, &version, Some(files))).transpose()
            }
            read => read.map(Some),
        }
    }

    /// Sends what happened in revisions `from..=to`.
    async fn send_past(&mut self, watch_id: i64, from: i64, to: i64) -> Result<(), Gone> {
        let Some(watcher) = self.watchers.get(&watch_id) else {
            return Ok(());
        };
        let past = match self.node.machine.history(&watcher.range, from, to).await {
            Ok(past) => past,
            Err(_) => return self.cancel_compacted(watch_id).await,
        };
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut revision = from;
        for Past { key, version, before } in past {
            let watcher = &self.watchers[&watch_id];
            if !wants(watcher, &version) {
                continue;
            }
            let event = self.event(watcher, &key, &version, None, before.as_ref());
            if bytes > RESPONSE_BYTES && version.main > revision {
                self.send_events(watch_id, std::mem::take(&mut events)).await?;
                bytes = 0;
            }
            revision = version.main;
            match event {
                Ok(Some(event)) => {
                    bytes += event.encoded_len();
                    events.push(event);
                }
                Ok(None) => return self.cancel_compacted(watch_id).await,
                Err(e) => return self.fail(&e).await,
            }
        }
        self.send_events(watch_id, events).await
    }

    /// Ends the stream, rather than leave an event out.
    async fn fail(&self, error: &io::Error) -> Result<(), Gone> {
        let status = match error.kind() {
            // It was moved twice meanwhile: a client that comes back gets it.
            io::ErrorKind::NotFound => Status::unavailable("etcdserver: a value was being moved"),
            _ => damaged(error),
        };
        let _ = self.out.send(Err(status)).await;
        Err(Gone)
    }

    async fn cancel_compacted(&mut self, watch_id: i64) -> Result<(), Gone> {
        let compacted = self.node.machine.read().store.compacted;
        if let Some(watcher) = self.forget(watch_id) {
            self.node.machine.hub.cancel(watcher.hub);
        }
        let mut response = self.response(watch_id, self.node.machine.hub.published());
        response.canceled = true;
        response.compact_revision = compacted;
        response.cancel_reason = EtcdError::Compacted.text().to_owned();
        self.send(response).await
    }

    /// Sends events that are whole revisions of one watcher.
    async fn send_events(&mut self, watch_id: i64, events: Vec<Event>) -> Result<(), Gone> {
        let Some(last) = events.last().and_then(|e| e.kv.as_ref()) else {
            return Ok(());
        };
        let mut response = self.response(watch_id, last.mod_revision);
        let fragment = match self.watchers.get_mut(&watch_id) {
            Some(watcher) => {
                watcher.quiet = false;
                watcher.fragment
            }
            None => return Ok(()),
        };
        let limit = self.node.config.max_request_bytes;
        if !fragment || events.iter().map(Message::encoded_len).sum::<usize>() < limit {
            response.events = events;
            return self.send(response).await;
        }
        let mut bytes = 0;
        let mut part = response.clone();
        part.fragment = true;
        for event in events {
            let len = event.encoded_len();
            if bytes + len > limit && !part.events.is_empty() {
                let full = std::mem::take(&mut part.events);
                let mut piece = part.clone();
                piece.events = full;
                self.send(piece).await?;
                bytes = 0;
            }
            bytes += len;
            part.events.push(event);
        }
        part.fragment = false;
        self.send(part).await
    }
}

/// Returns when a flag is raised.
async fn raised(flag: &mut tokio::sync::watch::Receiver<bool>) {
    if flag.wait_for(|is_raised| *is_raised).await.is_err() {
        // The member is stopping, which closes the stream by itself.
        std::future::pending().await
    }
}

fn wants(watcher: &Watcher, version: &Version) -> bool {
    if version.is_tombstone() { !watcher.no_delete } else { !watcher.no_put }
}
