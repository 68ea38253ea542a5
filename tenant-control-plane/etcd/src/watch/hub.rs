//! From applied revisions to the streams that watch them.
//!
//! The hub is told of every revision in order and puts each matching one into the queue of each
//! interested stream, without ever waiting: a watcher whose stream is full is marked as lagging
//! and reads what it missed from the store later. Everything about one watcher goes through one
//! queue, so its order is the order of revisions.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::mvcc::index::{Key, KeyRange};
use crate::mvcc::store::Revision;

/// Revisions that wait in one stream's queue before its watchers lag.
const QUEUE: usize = 1024;

/// What a stream's queue carries.
#[derive(Debug)]
pub enum Item {
    /// A revision with the events (by position) that concern a watcher.
    Events {
        /// The watcher.
        watcher: u64,
        /// The revision.
        revision: Arc<Revision>,
        /// Positions in `revision.events`.
        matched: Vec<u32>,
    },
    /// All watchers of this stream have been given everything up to this revision. `periodic`
    /// is what [`Hub::mark_progress`] was given.
    Progress {
        /// The revision.
        revision: i64,
        /// Whether the clock asked, and not the client.
        periodic: bool,
    },
    /// Look at the lag flag.
    Wake,
}

/// Identifies a stream.
pub type StreamId = u64;

struct Watcher {
    stream: StreamId,
    range: KeyRange,
    /// Revisions below are not for it.
    from: i64,
    /// The first revision that it missed.
    lagging: Option<i64>,
}

struct StreamEnd {
    tx: mpsc::Sender<Item>,
    /// Set when a watcher of the stream begins to lag.
    lag: Arc<AtomicBool>,
}

/// A stream's end of the hub.
pub struct Queue {
    /// The stream.
    pub id: StreamId,
    /// What it has to send.
    pub rx: mpsc::Receiver<Item>,
    /// Whether a watcher of it lags; cleared by whoever calls [`Hub::resume`].
    pub lag: Arc<AtomicBool>,
}

#[derive(Default)]
struct Inner {
    /// All revisions up to this one have been distributed.
    published: i64,
    streams: HashMap<StreamId, StreamEnd>,
    watchers: HashMap<u64, Watcher>,
    /// Watchers of one key.
    exact: HashMap<Key, Vec<u64>>,
    /// Watchers of ranges.
    ranges: Vec<u64>,
    next: u64,
}

/// The distributor of one member.
pub struct Hub {
    inner: Mutex<Inner>,
}

/// Where a new watcher stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// Its handle.
    pub watcher: u64,
    /// Everything after this revision will come through the queue.
    pub published: i64,
}

impl Hub {
    /// A hub whose next revision is the one after `revision`.
    pub fn new(revision: i64) -> Self {
        Self { inner: Mutex::new(Inner { published: revision, next: 1, ..Default::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while held")
    }

    /// A new stream's queue.
    pub fn open_stream(&self) -> Queue {
        let (tx, rx) = mpsc::channel(QUEUE);
        let lag = Arc::new(AtomicBool::new(false));
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        let end = StreamEnd { tx, lag: Arc::clone(&lag) };
        inner.streams.insert(id, end);
        Queue { id, rx, lag }
    }

    /// Forgets a stream; its watchers have been cancelled.
    pub fn close_stream(&self, stream: StreamId) {
        self.lock().streams.remove(&stream);
    }

    /// Adds a watcher for revisions from `from` on (0: from now on).
    pub fn register(&self, stream: StreamId, range: KeyRange, from: i64) -> Registered {
        let mut inner = self.lock();
        let watcher = inner.next;
        inner.next += 1;
        match &range {
            KeyRange::One(key) => {
                inner.exact.entry(key.as_slice().into()).or_default().push(watcher)
            }
            _ => inner.ranges.push(watcher),
        }
        let published = inner.published;
        inner.watchers.insert(
            watcher,
            Watcher { stream, range, from: from.max(published + 1), lagging: None },
        );
        Registered { watcher, published }
    }

    /// Forgets a watcher.
    pub fn cancel(&self, watcher: u64) {
        let mut inner = self.lock();
        let Some(w) = inner.watchers.remove(&watcher) else {
            return;
        };
        match &w.range {
            KeyRange::One(key) => {
                if let Some(list) = inner.exact.get_mut(key.as_slice()) {
                    list.retain(|x| *x != watcher);
                    if list.is_empty() {
                        inner.exact.remove(key.as_slice());
                    }
                }
            }
            _ => inner.ranges.retain(|x| *x != watcher),
        }
    }

    /// If the watcher lags: the revisions that it must read from the store, first and last. From
    /// then on it gets what follows through the queue again.
    pub fn resume(&self, watcher: u64) -> Option<(i64, i64)> {
        let mut inner = self.lock();
        let published = inner.published;
        let w = inner.watchers.get_mut(&watcher)?;
        let from = w.lagging.take()?;
        w.from = published + 1;
        Some((from, published))
    }

    /// Queues a progress mark for a stream. False if a watcher of it lags or its queue is full:
    /// then nothing can be promised yet.
    pub fn mark_progress(&self, stream: StreamId, periodic: bool) -> bool {
        let inner = self.lock();
        let lagging = inner.watchers.values().any(|w| w.stream == stream && w.lagging.is_some());
        match inner.streams.get(&stream) {
            Some(end) if !lagging => {
                let revision = inner.published;
                end.tx.try_send(Item::Progress { revision, periodic }).is_ok()
            }
            _ => false,
        }
    }

    /// Up to where revisions have been distributed.
    pub fn published(&self) -> i64 {
        self.lock().published
    }

    /// Number of watchers and streams.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.watchers.len(), inner.streams.len())
    }

    /// Distributes revisions, which follow the last one.
    pub fn publish(&self, revisions: Vec<Arc<Revision>>) {
        if revisions.is_empty() {
            return;
        }
        let mut inner = self.lock();
        for revision in revisions {
            inner.published = revision.main;
            if !inner.watchers.is_empty() {
                inner.distribute(&revision);
            }
        }
    }

    /// The state was replaced by a snapshot at `revision`: every watcher has to read up.
    pub fn jump(&self, revision: i64) {
        let mut inner = self.lock();
        let missed = inner.published + 1;
        inner.published = revision;
        for w in inner.watchers.values_mut() {
            let from = w.from.max(missed);
            if w.lagging.is_none() && from <= revision {
                w.lagging = Some(from);
            }
        }
        // Wake the streams; a full queue wakes them as well.
        for end in inner.streams.values() {
            end.lag.store(true, Ordering::Release);
            let _ = end.tx.try_send(Item::Wake);
        }
    }
}

impl Inner {
    fn distribute(&mut self, revision: &Arc<Revision>) {
        let mut hits: VecDeque<(u64, Vec<u32>)> = VecDeque::new();
        if !self.exact.is_empty() {
            self.match_exact(revision, &mut hits);
        }
        for id in &self.ranges {
            let range = &self.watchers[id].range;
            let matched: Vec<u32> = (0u32..)
                .zip(&revision.events)
                .filter(|(_, e)| range.contains(&e.key))
                .map(|(i, _)| i)
                .collect();
            if !matched.is_empty() {
                hits.push_back((*id, matched));
            }
        }
        for (id, matched) in hits {
            self.deliver(id, revision, matched);
        }
    }

    fn match_exact(&self, revision: &Revision, hits: &mut VecDeque<(u64, Vec<u32>)>) {
        // A transaction may delete one key twice, so one watcher may match more than once.
        let mut by_watcher: HashMap<u64, Vec<u32>> = HashMap::new();
        for (i, event) in (0u32..).zip(&revision.events) {
            for id in self.exact.get(&event.key).into_iter().flatten() {
                by_watcher.entry(*id).or_default().push(i);
            }
        }
        hits.extend(by_watcher);
    }

    fn deliver(&mut self, id: u64, revision: &Arc<Revision>, matched: Vec<u32>) {
        let Some(w) = self.watchers.get_mut(&id) else {
            return;
        };
        if w.lagging.is_some() || revision.main < w.from {
            return;
        }
        let Some(end) = self.streams.get(&w.stream) else {
            return;
        };
        let item = Item::Events { watcher: id, revision: Arc::clone(revision), matched };
        if let Err(TrySendError::Full(_)) = end.tx.try_send(item) {
            w.lagging = Some(revision.main);
            end.lag.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::store::Store;
    use crate::storage::files::ValueRef;

    fn revision(store: &mut Store, keys: &[&str]) -> Vec<Arc<Revision>> {
        let mut w = store.begin();
        for k in keys {
            w.put(k.as_bytes(), ValueRef::default(), None, 0);
        }
        w.commit().into_iter().map(Arc::new).collect()
    }

    fn drain(rx: &mut mpsc::Receiver<Item>) -> Vec<String> {
        let mut out = Vec::new();
        while let Ok(item) = rx.try_recv() {
            out.push(match item {
                Item::Events { watcher, revision, matched } => {
                    format!("{watcher}@{}:{matched:?}", revision.main)
                }
                Item::Progress { revision, .. } => format!("progress@{revision}"),
                Item::Wake => "wake".into(),
            });
        }
        out
    }

    #[test]
    fn watchers_get_what_they_asked_for_in_order() {
        let mut store = Store::default();
        let hub = Hub::new(store.revision);
        let Queue { id: s, mut rx, .. } = hub.open_stream();
        let one = hub.register(s, KeyRange::new(b"b", b""), 0).watcher;
        let range = hub.register(s, KeyRange::new(b"a", b"c"), 4).watcher;
        hub.publish(revision(&mut store, &["a", "b"]));
        hub.publish(revision(&mut store, &["a"]));
        hub.publish(revision(&mut store, &["a", "c", "b"]));
        assert!(hub.mark_progress(s, false));
        let mut got = drain(&mut rx);
        got[1..3].sort();
        let mut expected = [format!("{one}@4:[2]"), format!("{range}@4:[0, 2]")];
        expected.sort();
        assert_eq!(got[0], format!("{one}@2:[1]"));
        assert_eq!(got[1..3], expected);
        assert_eq!(got[3], "progress@4");
        hub.cancel(one);
        hub.cancel(range);
        hub.publish(revision(&mut store, &["b"]));
        assert!(drain(&mut rx).is_empty());
    }

    #[test]
    fn a_full_queue_makes_the_watcher_lag_and_resume_says_what_it_missed() {
        let mut store = Store::default();
        let hub = Hub::new(store.revision);
        let Queue { id: s, mut rx, .. } = hub.open_stream();
        let w = hub.register(s, KeyRange::new(b"k", b""), 0).watcher;
        for _ in 0..QUEUE + 10 {
            hub.publish(revision(&mut store, &["k"]));
        }
        assert!(!hub.mark_progress(s, false), "no promise while lagging");
        assert_eq!(drain(&mut rx).len(), QUEUE);
        let first_missed = 2 + QUEUE as i64;
        assert_eq!(hub.resume(w), Some((first_missed, first_missed + 9)));
        assert_eq!(hub.resume(w), None);
        hub.publish(revision(&mut store, &["k"]));
        assert_eq!(drain(&mut rx).len(), 1);
    }

    #[test]
    fn a_jump_makes_everybody_read_up() {
        let hub = Hub::new(5);
        let Queue { id: s, rx: _rx, lag } = hub.open_stream();
        let now = hub.register(s, KeyRange::new(b"k", b""), 0).watcher;
        let future = hub.register(s, KeyRange::new(b"k", b""), 50).watcher;
        hub.jump(20);
        assert!(lag.load(Ordering::Acquire));
        assert_eq!(hub.resume(now), Some((6, 20)));
        assert_eq!(hub.resume(future), None);
    }
}
