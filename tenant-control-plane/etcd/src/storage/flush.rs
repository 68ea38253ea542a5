//! Group commit: one thread that syncs, and tells everybody who waited for that sync.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::disk::{Disk, DiskFile};
use super::files::stop;
use super::record::Position;
use crate::threads;

/// Called when the data is on disk. Failure is not an outcome: the process stops.
pub type OnDurable = Box<dyn FnOnce() + Send>;

struct Request {
    file: Arc<dyn DiskFile>,
    upto: Position,
    done: OnDurable,
}

/// Handle to the thread. The thread ends when the handle is dropped.
pub struct Flusher {
    queue: mpsc::UnboundedSender<Request>,
    durable: Arc<AtomicU64>,
    syncs: Arc<AtomicU64>,
}

impl Flusher {
    /// Starts the thread. `durable` is the position up to which the log is already synced.
    pub fn start(disk: Arc<dyn Disk>, durable: Position) -> io::Result<Self> {
        let (queue, requests) = mpsc::unbounded_channel();
        let durable = Arc::new(AtomicU64::new(durable.to_u64()));
        let syncs = Arc::new(AtomicU64::new(0));
        let syncing = run(disk, requests, Arc::clone(&durable), Arc::clone(&syncs));
        threads::start("wal-sync", syncing)?;
        Ok(Self { queue, durable, syncs })
    }

    /// Syncs `file` and then calls `done`. Whatever was written to `file` before this call is
    /// covered; older segments were synced when they were closed.
    pub fn request(&self, file: Arc<dyn DiskFile>, upto: Position, done: OnDurable) {
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

async fn run(
    disk: Arc<dyn Disk>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    durable: Arc<AtomicU64>,
    syncs: Arc<AtomicU64>,
) {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, usize::MAX).await > 0 {
        let last = batch.last().expect("not empty");
        let (file, upto) = (Arc::clone(&last.file), last.upto);
        let delay = file.sync_delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Err(e) = file.sync_data() {
            stop(disk.as_ref(), &e);
        }
        syncs.fetch_add(1, Ordering::Relaxed);
        durable.fetch_max(upto.to_u64(), Ordering::AcqRel);
        for request in batch.drain(..) {
            (request.done)();
        }
    }
}
