//! Group commit: one thread that syncs, and tells everybody who waited for that sync.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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
    one: Arc<Mutex<()>>,
}

/// Does one sync at a time: the kernel tells of an error once, and whoever hears of it stops the process
/// before the next sync could seem to succeed.
fn alone(disk: &dyn Disk, one: &Mutex<()>, sync: impl FnOnce() -> io::Result<()>) {
    let _one = one.lock();
    if let Err(e) = sync() {
        stop(disk, &e);
    }
}

impl Flusher {
    /// Starts the thread. `durable` is the position up to which the log is already synced.
    pub fn start(disk: Arc<dyn Disk>, durable: Position) -> io::Result<Self> {
        let (queue, requests) = mpsc::unbounded_channel();
        let durable = Arc::new(AtomicU64::new(durable.to_u64()));
        let syncs = Arc::new(AtomicU64::new(0));
        let one = Arc::default();
        let (mark, count) = (Arc::clone(&durable), Arc::clone(&syncs));
        threads::start("wal-sync", run(disk, requests, mark, count, Arc::clone(&one)))?;
        Ok(Self { queue, durable, syncs, one })
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

    /// Syncs at once, up to `upto`.
    pub fn sync_now(&self, disk: &dyn Disk, file: &dyn DiskFile, upto: Position) {
        alone(disk, &self.one, || file.sync_data());
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.note_durable(upto);
    }

    /// Syncs a file to which nothing will be added, with its length.
    pub fn sync_closed(&self, disk: &dyn Disk, file: &dyn DiskFile) {
        alone(disk, &self.one, || file.sync_all());
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
    one: Arc<Mutex<()>>,
) {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, usize::MAX).await > 0 {
        let last = batch.last().expect("not empty");
        let (file, upto) = (Arc::clone(&last.file), last.upto);
        let delay = file.sync_delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        alone(disk.as_ref(), &one, || file.sync_data());
        syncs.fetch_add(1, Ordering::Relaxed);
        durable.fetch_max(upto.to_u64(), Ordering::AcqRel);
        for request in batch.drain(..) {
            (request.done)();
        }
    }
}
