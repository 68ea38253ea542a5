//! The log as openraft sees it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::codec::{entry_from_log, entry_to_log, log_id, vote_from_pb, vote_to_pb};
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::machine::Machine;
use crate::storage::log;

/// Entries that are read into memory at once, for a follower or for applying.
const READ_BYTES: usize = 1 << 20;

/// Log storage of one member.
#[derive(Clone)]
pub struct LogStore {
    machine: Arc<Machine>,
}

impl LogStore {
    /// The log of this machine.
    pub fn new(machine: Arc<Machine>) -> Self {
        Self { machine }
    }

    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        self.machine
            .log
            .read(start, end, max_bytes)?
            .into_iter()
            .map(|e| entry_from_log(e).map_err(io::Error::other))
            .collect()
    }
}

fn id(id: Option<log::LogId>) -> Option<LogId> {
    id.map(|(term, index)| log_id(term, index))
}

fn plain(id: &LogId) -> log::LogId {
    (id.leader_id.term, id.index)
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(n) => *n,
        Bound::Excluded(n) => n + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(n) => n + 1,
        Bound::Excluded(n) => *n,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let store = self.clone();
        // One block at a time: what has to be applied after a restart may not fit in memory.
        futures::stream::iter(Blocks { store, next: start, end, failed: false }).flatten_blocks()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.machine.log.vote().map(vote_from_pb))
    }
}

struct Blocks {
    store: LogStore,
    next: u64,
    end: u64,
    failed: bool,
}

impl Iterator for Blocks {
    type Item = Vec<Result<Entry, io::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end || self.failed {
            return None;
        }
        match self.store.read(self.next, self.end, READ_BYTES) {
            Ok(entries) if entries.is_empty() => None,
            Ok(entries) => {
                self.next += entries.len() as u64;
                Some(entries.into_iter().map(Ok).collect())
            }
            Err(e) => {
                self.failed = true;
                Some(vec![Err(e)])
            }
        }
    }
}

trait FlattenBlocks: Stream<Item = Vec<Result<Entry, io::Error>>> + Sized {
    fn flatten_blocks(self) -> impl Stream<Item = Result<Entry, io::Error>> {
        futures::StreamExt::flat_map(self, futures::stream::iter)
    }
}

impl<S: Stream<Item = Vec<Result<Entry, io::Error>>>> FlattenBlocks for S {}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let view = self.machine.log.view();
        Ok(LogState { last_purged_log_id: id(view.purged), last_log_id: id(view.last) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (tx, rx) = oneshot::channel();
        let done = Box::new(move || {
            let _ = tx.send(());
        });
        self.machine.log.save_vote(vote_to_pb(vote), done);
        rx.await.map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.machine.log.set_committed(committed.as_ref().map(plain));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        // The mark may be ahead of a log whose tail was torn; nothing can be applied there.
        let last = self.machine.log.view().last;
        let committed = self.machine.log.committed();
        Ok(id(committed.filter(|c| last.is_some_and(|l| c.1 <= l.1))))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let done = Box::new(move || callback.io_completed(Ok(())));
        self.machine.log.append(entries.into_iter().map(entry_to_log), done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.machine.log.truncate_after(last.as_ref().map(plain));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        // Only what the checkpoint on disk covers: a recovery applies everything behind it.
        if upto.index < self.machine.checkpointed_next() {
            self.machine.log.purge(plain(&upto));
        }
        Ok(())
    }
}
