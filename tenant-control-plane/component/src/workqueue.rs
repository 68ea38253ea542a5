//! A queue of keys to look at, with de-duplication, delays and per-key back-off.
//!
//! A key that is added while a worker handles it is handled once more afterwards, and never by two
//! workers at once. The queue carries no events: whoever takes a key reads the current state.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First delay after a failure; it doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Longest delay after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Longest delay at all: a key that comes back early is looked at in vain, and delayed again.
const DELAY_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a queue can hold.
pub trait Key: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static> Key for T {}

/// See the module documentation.
pub struct WorkQueue<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Keys that wait in `ready`, or that must be handled again once their worker is done.
    dirty: HashSet<T>,
    processing: HashSet<T>,
    /// Also holds the former times of keys that have moved to an earlier one.
    delayed: BinaryHeap<Reverse<(Instant, T)>>,
    /// When each delayed key is due.
    due: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
}

impl<T: Key> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Key> WorkQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BinaryHeap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Makes sure that the key is handled after now.
    pub fn add(&self, key: T) {
        if self.lock().add(key) {
            self.wake.notify_one();
        }
    }

    /// Adds the key after a delay, or when it is due already if that is earlier.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        if self.lock().delay(key, Instant::now() + delay.min(DELAY_MAX)) {
            self.wake.notify_one();
        }
    }

    /// Adds the key after its back-off, which grows until [`WorkQueue::forget`].
    pub fn add_rate_limited(&self, key: T) {
        let failures = {
            let mut state = self.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures += 1;
            *failures
        };
        let delay = BACKOFF_MIN.saturating_mul(1 << (failures - 1).min(20)).min(BACKOFF_MAX);
        self.add_after(key, delay);
    }

    /// Ends the key's back-off.
    pub fn forget(&self, key: &T) {
        self.lock().failures.remove(key);
    }

    /// Keys that are ready to be taken.
    pub fn len(&self) -> usize {
        self.lock().ready.len()
    }

    /// True when no key is ready to be taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for a key. The caller must hand it back with [`WorkQueue::done`].
    pub async fn take(&self) -> T {
        loop {
            let next = {
                let mut state = self.lock();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.processing.insert(key.clone());
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.peek().map(|Reverse((at, _))| *at)
            };
            match next {
                None => self.wake.notified().await,
                Some(at) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
            }
        }
    }

    /// Says that the worker is through with the key.
    pub fn done(&self, key: &T) {
        let mut state = self.lock();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            self.wake.notify_one();
        }
    }
}

impl<T: Key> State<T> {
    fn add(&mut self, key: T) -> bool {
        if !self.dirty.insert(key.clone()) || self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// True when the key is due earlier than before.
    fn delay(&mut self, key: T, at: Instant) -> bool {
        if self.due.get(&key).is_some_and(|known| *known <= at) {
            return false;
        }
        self.due.insert(key.clone(), at);
        self.delayed.push(Reverse((at, key)));
        true
    }

    fn promote(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.delayed.peek() {
            if *at > now {
                return;
            }
            if let Some(Reverse((at, key))) = self.delayed.pop()
                && self.due.get(&key) == Some(&at)
            {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

/// When a key wants to be looked at again although nothing changed.
pub type Requeue = Option<Duration>;

/// Handles keys with `workers` concurrent workers until shutdown. A failure is logged and the key
/// comes back after its back-off.
pub async fn run_workers<T, F, Fut>(
    name: &'static str,
    queue: Arc<WorkQueue<T>>,
    workers: usize,
    shutdown: CancellationToken,
    handle: F,
) where
    T: Key + Display,
    F: Fn(T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<Requeue>> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers.max(1) {
        let (queue, shutdown, handle) = (queue.clone(), shutdown.clone(), handle.clone());
        tasks.spawn(async move {
            loop {
                let key = tokio::select! {
                    () = shutdown.cancelled() => return,
                    key = queue.take() => key,
                };
                // The handler runs in its own task: where panics unwind, one costs an attempt and not
                // the worker. A release build aborts, and whoever supervises the process starts it
                // anew.
                let outcome = match tokio::spawn(handle(key.clone())).await {
                    Ok(outcome) => outcome,
                    Err(panic) => Err(anyhow::anyhow!("the handler panicked: {panic}")),
                };
                match outcome {
                    Ok(requeue) => {
                        queue.forget(&key);
                        if let Some(delay) = requeue {
                            queue.add_after(key.clone(), delay);
                        }
                    }
                    Err(error) => {
                        log_failure(name, &key, &error);
                        queue.add_rate_limited(key.clone());
                    }
                }
                queue.done(&key);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Conflicts are how optimistic concurrency works, and not worth a warning.
fn log_failure(controller: &str, key: &impl Display, error: &anyhow::Error) {
    let routine = error
        .downcast_ref::<kube::Error>()
        .is_some_and(|e| matches!(e, kube::Error::Api(status) if status.code == 409));
    if routine {
        tracing::debug!(controller, %key, "will try again: {error:#}");
    } else {
        tracing::warn!(controller, %key, "failed, will try again: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_added_while_it_is_handled_comes_back_once() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        let key = queue.take().await;
        queue.add("a");
        queue.add("a");
        assert!(queue.is_empty(), "not while a worker has it");
        queue.done(&key);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.take().await, "a");
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_key_has_one_delay_and_that_is_the_shortest() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        for millis in [60, 80, 20, 40] {
            queue.add_after("a", Duration::from_millis(millis));
        }
        queue.add_after("end", Duration::from_millis(100));
        queue.add_after("never", Duration::MAX);
        assert_eq!(queue.take().await, "a");
        assert!(start.elapsed() >= Duration::from_millis(20));
        queue.done(&"a");
        assert_eq!(queue.take().await, "end", "the other delays of the first are forgotten");
        queue.add_after("a", Duration::from_millis(5));
        assert_eq!(queue.take().await, "a");
    }

    #[tokio::test]
    async fn delays_and_back_off_are_kept() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("late", Duration::from_millis(60));
        queue.add_after("soon", Duration::from_millis(10));
        assert_eq!(queue.take().await, "soon");
        assert_eq!(queue.take().await, "late");
        assert!(start.elapsed() >= Duration::from_millis(60));

        let start = Instant::now();
        for _ in 0..3 {
            queue.add_rate_limited("failing");
            queue.take().await;
            queue.done(&"failing");
        }
        assert!(start.elapsed() >= Duration::from_millis(5 + 10 + 20));
    }
}
