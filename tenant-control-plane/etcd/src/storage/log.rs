//! The write-ahead log: raft entries, and at the same time the place where values live.
//!
//! An entry is written once. The state machine keeps [`ValueRef`]s into the entry's record, so
//! applying it writes nothing: the log record *is* the atomic record of index and data.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use prost::Message;

use super::disk::{Disk, DiskFile};
use super::files::{Files, ValueRef, stop};
use super::flush::{Flusher, OnDurable};
use super::record::{self, Kind, Parsed, Position};
use super::recover::{self, Recovered};
use crate::pb;

/// Bytes of an entry record's payload before the data: index, term, type.
const ENTRY_HEAD: usize = 17;
/// Entries in memory for replication and apply; older ones are read back from disk.
const CACHE_BYTES: usize = 2 << 20;
const SEGMENT_MAX_BYTES: u64 = 256 << 20;

/// What kind of raft entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryType {
    /// A new leader's first entry.
    Blank = 0,
    /// An encoded `Batch`.
    Batch = 1,
    /// JSON of a membership.
    Membership = 2,
}

/// One raft entry with its place on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// What the data is.
    pub entry_type: EntryType,
    /// The data.
    pub data: Bytes,
    /// Where the data's first byte is.
    pub at: Position,
}

impl LogEntry {
    /// The place of `part`, which must be a slice of this entry's data.
    pub fn locate(&self, part: &Bytes) -> ValueRef {
        if part.is_empty() {
            return ValueRef::default();
        }
        let delta = (part.as_ptr() as usize)
            .checked_sub(self.data.as_ptr() as usize)
            .filter(|d| d + part.len() <= self.data.len())
            .expect("decoding from `Bytes` yields slices of it");
        ValueRef {
            segment: self.at.segment,
            offset: self.at.offset + u32::try_from(delta).expect("within a record"),
            len: u32::try_from(part.len()).expect("within a record"),
            crc: crc32fast::hash(part),
        }
    }
}

/// A raft log position: term and index.
pub type LogId = (u64, u64);

pub(super) struct Slot {
    pub term: u64,
    pub entry_type: EntryType,
    /// Of the record, not of the data.
    pub at: Position,
    pub data_len: u32,
    pub data: Option<Bytes>,
}

/// What raft wants to know about the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogView {
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The last entry, or the last purged one.
    pub last: Option<LogId>,
}

struct Inner {
    slots: VecDeque<Slot>,
    /// Entry before `slots[0]`.
    purged: Option<LogId>,
    /// What raft asked to purge; the log keeps more when the checkpoint needs it.
    vote: Option<pb::VoteState>,
    committed: Option<LogId>,
    committed_written: bool,
    active: u32,
    file: Arc<dyn DiskFile>,
    end: u32,
    capacity: u32,
    cached: usize,
    /// Slots before this index in `slots` have no data in memory.
    uncached: usize,
    total_bytes: u64,
    scratch: Vec<u8>,
}

/// The log. All methods are thread-safe; writes are ordered by the lock.
pub struct Log {
    inner: Mutex<Inner>,
    files: Arc<Files>,
    flusher: Flusher,
    holds: Arc<AtomicUsize>,
}

/// As long as there is one, no segment is deleted: values may be in the log that nothing refers to
/// yet.
pub struct Hold(Arc<AtomicUsize>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn proto_id(id: Option<LogId>) -> Option<pb::LogId> {
    id.map(|(term, index)| pb::LogId { term, index })
}

impl Log {
    /// Opens the log below `dir`, reading from segment `from` on (the checkpoint knows it).
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, from: u32) -> anyhow::Result<Self> {
        let files = Arc::new(Files::new(Arc::clone(&disk), dir));
        let Recovered { slots, purged, vote, committed, next_segment, total_bytes, .. } =
            recover::scan(&files, from)?;
        let last = slots
            .back()
            .map(|s| (s.term, purged.map_or(0, |p| p.1 + 1) + slots.len() as u64 - 1))
            .or(purged);
        let state = pb::LogState {
            vote,
            committed: proto_id(committed),
            purged: proto_id(purged),
            previous: proto_id(last),
            ..Default::default()
        };
        let capacity = segment_size(disk.as_ref(), total_bytes);
        let (file, end) = new_segment(&files, next_segment, capacity, &state)?;
        let start = Position { segment: next_segment, offset: end };
        let uncached = slots.len();
        Ok(Self {
            flusher: Flusher::start(disk, start)?,
            files,
            holds: Arc::default(),
            inner: Mutex::new(Inner {
                slots,
                purged,
                vote,
                committed,
                committed_written: true,
                active: next_segment,
                file,
                end,
                capacity: u32::try_from(capacity).expect("a segment is below 4 GiB"),
                cached: 0,
                uncached,
                total_bytes,
                scratch: Vec::new(),
            }),
        })
    }

    /// The files, for reading values.
    pub fn files(&self) -> &Arc<Files> {
        &self.files
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a panic with the log held aborts")
    }

    /// What raft wants to know at its start.
    pub fn view(&self) -> LogView {
        let inner = self.lock();
        LogView { purged: inner.purged, last: inner.last() }
    }

    /// The last saved vote.
    pub fn vote(&self) -> Option<pb::VoteState> {
        self.lock().vote
    }

    /// The last committed position that is known here.
    pub fn committed(&self) -> Option<LogId> {
        self.lock().committed
    }

    /// Notes the committed position. It reaches the disk with the next append.
    pub fn set_committed(&self, id: Option<LogId>) {
        let mut inner = self.lock();
        inner.committed = id;
        inner.committed_written = false;
    }

    /// Saves a vote; `done` is called when it is durable.
    pub fn save_vote(&self, vote: pb::VoteState, done: OnDurable) {
        let mut inner = self.lock();
        inner.vote = Some(vote);
        self.write_state(&mut inner, &pb::LogState { vote: Some(vote), ..Default::default() });
        self.flush(&inner, done);
    }

    /// Appends entries (`index, term, type, data`), which must continue the log. When this
    /// returns they can be read; when `done` is called they are durable.
    pub fn append(
        &self,
        entries: impl IntoIterator<Item = (u64, u64, EntryType, Bytes)>,
        done: OnDurable,
    ) {
        let mut inner = self.lock();
        if !inner.committed_written {
            inner.committed_written = true;
            let state = pb::LogState { committed: proto_id(inner.committed), ..Default::default() };
            self.stage(&mut inner, Kind::State, &[&state.encode_to_vec()]);
        }
        for (index, term, entry_type, data) in entries {
            assert_eq!(Some(index), Some(inner.next_index()), "raft appends without holes");
            let mut head = [0; ENTRY_HEAD];
            head[..8].copy_from_slice(&index.to_le_bytes());
            head[8..16].copy_from_slice(&term.to_le_bytes());
            head[16] = entry_type as u8;
            let at = self.stage(&mut inner, Kind::Entry, &[&head, &data]);
            inner.cached += data.len();
            inner.slots.push_back(Slot {
                term,
                entry_type,
                at,
                data_len: u32::try_from(data.len()).expect("within a record"),
                data: Some(data),
            });
        }
        self.write_staged(&mut inner);
        inner.evict();
        self.flush(&inner, done);
    }

    /// Forgets entries after `after` (`None`: all).
    pub fn truncate_after(&self, after: Option<LogId>) {
        let mut inner = self.lock();
        let state = pb::LogState {
            truncate_after: proto_id(after),
            truncate_all: after.is_none(),
            ..Default::default()
        };
        self.write_state(&mut inner, &state);
        let keep = after.map_or(0, |a| a.1 + 1).saturating_sub(inner.base());
        inner.slots.truncate(keep as usize);
        inner.uncached = inner.uncached.min(inner.slots.len());
        inner.cached = inner.slots.iter().flat_map(|s| &s.data).map(Bytes::len).sum();
    }

    /// Forgets entries up to `upto`. The caller has made sure that a checkpoint covers them.
    pub fn purge(&self, upto: LogId) {
        let mut inner = self.lock();
        if inner.purged.is_some_and(|p| p.1 >= upto.1) {
            return;
        }
        let state = pb::LogState { purged: proto_id(Some(upto)), ..Default::default() };
        self.write_state(&mut inner, &state);
        inner.purge(upto);
    }

    /// Entries of `[start, end)` that are present, at most about `max_bytes` of data (but one).
    pub fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<LogEntry>> {
        let inner = self.lock();
        let base = inner.base();
        let last = base + inner.slots.len() as u64;
        let mut out = Vec::new();
        let mut bytes = 0;
        for index in start.max(base)..end.min(last) {
            let slot = &inner.slots[(index - base) as usize];
            bytes += slot.data_len as usize;
            if bytes > max_bytes && !out.is_empty() {
                break;
            }
            let data = match &slot.data {
                Some(d) => d.clone(),
                None => read_entry(&self.files, slot)?,
            };
            out.push(LogEntry {
                index,
                term: slot.term,
                entry_type: slot.entry_type,
                data,
                at: data_position(slot.at),
            });
        }
        Ok(out)
    }

    /// The segment that holds the entry `index`, or the first entry after it, or the next one.
    pub fn segment_from(&self, index: u64) -> u32 {
        let inner = self.lock();
        let i = index.saturating_sub(inner.base()) as usize;
        inner.slots.get(i).map_or(inner.active, |s| s.at.segment)
    }

    /// Writes a value outside of any entry (from a snapshot, or moved out of a dying segment).
    /// Not durable before [`Self::sync`], and kept only under a [`Hold`] or once the state refers
    /// to it.
    pub fn put_values(&self, values: &[Bytes]) -> Vec<ValueRef> {
        let mut inner = self.lock();
        let mut out = Vec::with_capacity(values.len());
        for value in values {
            if value.is_empty() {
                out.push(ValueRef::default());
                continue;
            }
            let at = self.stage(&mut inner, Kind::Value, &[value]);
            out.push(ValueRef {
                segment: at.segment,
                offset: at.offset + record::HEADER as u32,
                len: u32::try_from(value.len()).expect("within a record"),
                crc: crc32fast::hash(value),
            });
            if inner.scratch.len() > 1 << 20 {
                self.write_staged(&mut inner);
            }
        }
        self.write_staged(&mut inner);
        out
    }

    /// Blocks until everything written so far is durable.
    pub fn sync(&self) {
        let (file, upto) = {
            let inner = self.lock();
            (Arc::clone(&inner.file), Position { segment: inner.active, offset: inner.end })
        };
        self.flusher.sync_now(self.files.disk().as_ref(), file.as_ref(), upto);
    }

    /// Keeps all segments, for whoever puts values and refers to them later.
    pub fn hold(&self) -> Hold {
        self.holds.fetch_add(1, Ordering::AcqRel);
        Hold(Arc::clone(&self.holds))
    }

    /// Whether somebody keeps all segments.
    pub fn is_held(&self) -> bool {
        self.holds.load(Ordering::Acquire) > 0
    }

    /// The segment that is being written; it must not be deleted.
    pub fn active_segment(&self) -> u32 {
        self.lock().active
    }

    /// Segments before `from` that `is_dead` says hold nothing that is needed: deletes them.
    pub fn remove_segments(&self, from: u32, is_dead: impl Fn(u32) -> bool) -> io::Result<u64> {
        let mut freed = 0;
        for id in self.files.list()? {
            if id < from && is_dead(id) {
                freed += self.files.get(id)?.len()?;
                self.files.remove(id)?;
            }
        }
        let mut inner = self.lock();
        inner.total_bytes = inner.total_bytes.saturating_sub(freed);
        Ok(freed)
    }

    /// Bytes of all segment files, and how often the disk was synced.
    pub fn usage(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.total_bytes + u64::from(inner.end), self.flusher.syncs())
    }

    fn flush(&self, inner: &Inner, done: OnDurable) {
        let upto = Position { segment: inner.active, offset: inner.end };
        self.flusher.request(Arc::clone(&inner.file), upto, done);
    }

    fn write_state(&self, inner: &mut Inner, state: &pb::LogState) {
        self.stage(inner, Kind::State, &[&state.encode_to_vec()]);
        self.write_staged(inner);
    }

    /// Adds a record to the scratch buffer and returns its place. Starts a new segment if the
    /// record does not fit.
    fn stage(&self, inner: &mut Inner, kind: Kind, parts: &[&[u8]]) -> Position {
        let size = record::size(parts.iter().map(|p| p.len()).sum());
        let staged = inner.scratch.len();
        if inner.end as usize + staged + size > inner.capacity as usize {
            self.write_staged(inner);
            if let Err(e) = self.rotate(inner, size) {
                stop(self.files.disk().as_ref(), &e);
            }
        }
        let at = Position {
            segment: inner.active,
            offset: inner.end + u32::try_from(inner.scratch.len()).expect("below the capacity"),
        };
        let durable = self.flusher.durable();
        record::write(&mut inner.scratch, at, durable, kind, parts);
        at
    }

    fn write_staged(&self, inner: &mut Inner) {
        if inner.scratch.is_empty() {
            return;
        }
        if let Err(e) = inner.file.write_at(&inner.scratch, u64::from(inner.end)) {
            stop(self.files.disk().as_ref(), &e);
        }
        inner.end += u32::try_from(inner.scratch.len()).expect("below the capacity");
        inner.scratch.clear();
        // One large request must not pin its buffer for ever.
        inner.scratch.shrink_to(256 << 10);
    }

    /// Closes the active segment (synced and cut to its length) and opens the next.
    fn rotate(&self, inner: &mut Inner, at_least: usize) -> io::Result<()> {
        inner.file.set_len(u64::from(inner.end))?;
        self.flusher.sync_closed(self.files.disk().as_ref(), inner.file.as_ref());
        self.flusher.note_durable(Position { segment: inner.active, offset: inner.end });
        inner.total_bytes += u64::from(inner.end);
        let state = pb::LogState {
            vote: inner.vote,
            committed: proto_id(inner.committed),
            purged: proto_id(inner.purged),
            previous: proto_id(inner.last()),
            ..Default::default()
        };
        let capacity =
            segment_size(self.files.disk().as_ref(), inner.total_bytes).max(at_least as u64 + 4096);
        let (file, end) = new_segment(&self.files, inner.active + 1, capacity, &state)?;
        inner.active += 1;
        inner.file = file;
        inner.end = end;
        inner.capacity = u32::try_from(capacity).map_err(io::Error::other)?;
        Ok(())
    }
}

impl Inner {
    /// Index of `slots[0]`.
    fn base(&self) -> u64 {
        self.purged.map_or(0, |p| p.1 + 1)
    }

    fn next_index(&self) -> u64 {
        self.base() + self.slots.len() as u64
    }

    fn last(&self) -> Option<LogId> {
        self.slots.back().map(|s| (s.term, self.next_index() - 1)).or(self.purged)
    }

    fn purge(&mut self, upto: LogId) {
        let drop = upto.1 + 1 - self.base();
        let drop = (drop as usize).min(self.slots.len());
        for slot in self.slots.drain(..drop) {
            self.cached -= slot.data.map_or(0, |d| d.len());
        }
        self.uncached = self.uncached.saturating_sub(drop);
        self.purged = Some(upto);
    }

    fn evict(&mut self) {
        while self.cached > CACHE_BYTES && self.uncached + 1 < self.slots.len() {
            if let Some(data) = self.slots[self.uncached].data.take() {
                self.cached -= data.len();
            }
            self.uncached += 1;
        }
    }
}

fn segment_size(disk: &dyn Disk, total: u64) -> u64 {
    (total / 256).next_power_of_two().clamp(disk.segment_bytes(), SEGMENT_MAX_BYTES)
}

fn new_segment(
    files: &Files,
    id: u32,
    capacity: u64,
    state: &pb::LogState,
) -> io::Result<(Arc<dyn DiskFile>, u32)> {
    let mut head = recover::segment_head(id);
    let at = Position { segment: id, offset: head.len() as u32 };
    record::write(&mut head, at, at, Kind::State, &[&state.encode_to_vec()]);
    let file = files.create(id, capacity, &head)?;
    Ok((file, head.len() as u32))
}

fn data_position(record: Position) -> Position {
    Position { offset: record.offset + (record::HEADER + ENTRY_HEAD) as u32, ..record }
}

fn read_entry(files: &Files, slot: &Slot) -> io::Result<Bytes> {
    // Without the padding: a crash may have cut that off.
    let mut buf = vec![0; record::HEADER + ENTRY_HEAD + slot.data_len as usize];
    files.get(slot.at.segment)?.read_at(&mut buf, u64::from(slot.at.offset))?;
    match record::parse(&buf, slot.at) {
        Parsed::Record { kind: Kind::Entry, .. } => {
            let start = record::HEADER + ENTRY_HEAD;
            Ok(Bytes::from(buf).slice(start..start + slot.data_len as usize))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("log record at {:?} fails its checksum", slot.at),
        )),
    }
}

pub(super) fn parse_entry(payload: &[u8]) -> Option<(u64, u64, EntryType)> {
    let head = payload.get(..ENTRY_HEAD)?;
    let entry_type = match head[16] {
        0 => EntryType::Blank,
        1 => EntryType::Batch,
        2 => EntryType::Membership,
        _ => return None,
    };
    let index = u64::from_le_bytes(head[..8].try_into().ok()?);
    let term = u64::from_le_bytes(head[8..16].try_into().ok()?);
    Some((index, term, entry_type))
}

pub(super) fn data_len(payload: &[u8]) -> u32 {
    (payload.len() - ENTRY_HEAD) as u32
}
