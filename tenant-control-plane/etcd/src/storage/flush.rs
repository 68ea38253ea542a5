//! Group commit: one thread that syncs, and tells everybody who waited for that sync.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use super::record::Position;

/// Called when the data is on disk. Failure is not an outcome: the process stops.
pub type OnDurable = Box<dyn FnOnce() + Send>;

struct Request {
    file: Arc<File>,
    upto: Position,
    done: OnDurable,
}

/// Handle to the thread. The thread ends when the handle is dropped.
pub struct Flusher {
    queue: mpsc::Sender<Request>,
    durable: Arc<AtomicU64>,
    syncs: Arc<AtomicU64>,
}

impl Flusher {
    /// Starts the thread. `durable` is the position up to which the log is already synced.
    pub fn start(durable: Position) -> io::Result<Self> {
        let (queue, requests) = mpsc::channel();
        let durable = Arc::new(AtomicU64::new(durable.to_u64()));
        let syncs = Arc::new(AtomicU64::new(0));
        let (mark, count) = (Arc::clone(&durable), Arc::clone(&syncs));
        std::thread::Builder::new()
            .name("wal-sync".into())
            .stack_size(256 << 10)
            .spawn(move || run(&requests, &mark, &count))?;
        Ok(Self { queue, durable, syncs })
    }

    /// Syncs `file` and then calls `done`. Whatever was written to `file` before this call is
    /// covered; older segments were synced when they were closed.
    pub fn request(&self, file: Arc<File>, upto: Position, done: OnDurable) {
        let sent = self.queue.send(Request { file, upto, done });
        // The thread ends only with this handle, or by aborting the process.
        sent.expect("the sync thread lives as long as its handle");
    }

    /// The position up to which the log is synced.
    pub fn durable(&self) -> Position {
        Position::from_u64(self.durable.load(Ordering::Acquire))
    }

    /// How often the disk was asked to sync.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Notes a sync that somebody else did (closing a segment).
    pub fn note_durable(&self, upto: Position) {
        self.durable.fetch_max(upto.to_u64(), Ordering::AcqRel);
    }
}

fn run(requests: &mpsc::Receiver<Request>, durable: &AtomicU64, syncs: &AtomicU64) {
    let mut batch = Vec::new();
    while let Ok(first) = requests.recv() {
        batch.push(first);
        batch.extend(requests.try_iter());
        let last = batch.last().expect("just pushed");
        if let Err(e) = last.file.sync_data() {
            stop(&e);
        }
        syncs.fetch_add(1, Ordering::Relaxed);
        durable.fetch_max(last.upto.to_u64(), Ordering::AcqRel);
        for request in batch.drain(..) {
            (request.done)();
        }
    }
}

/// After a failed sync the kernel may have dropped the dirty pages, so that a later successful
/// sync would prove nothing. The only safe reaction is to stop and recover from what the disk has.
pub fn stop(error: &io::Error) -> ! {
    tracing::error!(error = %error, "the log could not be written or synced; stopping");
    eprintln!("etcd: the log could not be written or synced: {error}");
    std::process::abort()
}
