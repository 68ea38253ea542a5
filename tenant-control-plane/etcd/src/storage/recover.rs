//! Reading the log back: what is valid, what was torn off by a crash, and what is rot.
//!
//! A segment is closed (cut to its length and synced) before the next one is created, and a
//! restart never appends to an old segment. So in every segment but the newest each byte must be
//! valid. In the newest, an invalid record is a torn tail unless a later record says that the
//! place had been synced; then it is corruption and the member must not start.

use std::collections::VecDeque;
use std::io;

use prost::Message;

use super::files::Files;
use super::log::{LogId, Slot, data_len, parse_entry};
use super::record::{self, Kind, Parsed, Position};
use crate::pb;

const MAGIC: &[u8; 8] = b"MARINALG";
const VERSION: u32 = 1;
/// Bytes before the first record of a segment.
const SEGMENT_HEAD: usize = 16;

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The disk could not be read.
    #[error("log segment {segment}: {source}")]
    Io {
        /// Which file.
        segment: u32,
        /// Why.
        source: io::Error,
    },
    /// Data that had been synced is not there.
    #[error("log segment {segment} is corrupt at byte {offset}: {what}")]
    Corrupt {
        /// Which file.
        segment: u32,
        /// Where.
        offset: u32,
        /// What is wrong.
        what: String,
    },
}

pub(super) struct Recovered {
    pub slots: VecDeque<Slot>,
    pub purged: Option<LogId>,
    pub vote: Option<pb::VoteState>,
    pub committed: Option<LogId>,
    pub next_segment: u32,
    pub total_bytes: u64,
    /// Up to where the log is known to have been synced.
    durable: Position,
}

pub(super) fn segment_head(id: u32) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&id.to_le_bytes());
    head
}

fn native(id: pb::LogId) -> LogId {
    (id.term, id.index)
}

/// Reads all segments from `from` on. The newest one is cut behind its last valid record.
pub(super) fn scan(files: &Files, from: u32) -> Result<Recovered, RecoverError> {
    let io = |segment| move |source| RecoverError::Io { segment, source };
    files.remove_temporary().map_err(io(from))?;
    let ids = files.list().map_err(io(from))?;
    let mut out = Recovered {
        slots: VecDeque::new(),
        purged: None,
        vote: None,
        committed: None,
        next_segment: ids.last().map_or(1, |last| last + 1),
        total_bytes: 0,
        durable: Position::default(),
    };
    let newest = ids.last().copied();
    let mut started = false;
    for id in ids {
        if id < from {
            out.total_bytes += files.get(id).and_then(|file| file.len()).map_err(io(id))?;
            continue;
        }
        let bytes = files.disk().read(&files.path(id)).map_err(io(id))?;
        out.total_bytes += bytes.len() as u64;
        let valid = scan_segment(&mut out, id, &bytes, !started)?;
        started = true;
        if valid < bytes.len() {
            if Some(id) != newest && !bytes[valid..].iter().all(|b| *b == 0) {
                return Err(corrupt(id, valid, "a closed segment has an invalid record"));
            }
            check_torn(id, &bytes, valid)?;
            out.total_bytes -= (bytes.len() - valid) as u64;
        }
        if valid < bytes.len() || Some(id) == newest {
            // What a killed process has written may be in the page cache only, and after a failed sync
            // the kernel may think that it is not: written again, it is. From here on it counts as
            // durable. (The newest is whole if the kill came while it was being closed.)
            let known = if out.durable.segment == id { out.durable.offset as usize } else { 0 };
            let file = files.get(id).map_err(io(id))?;
            file.set_len(valid as u64).map_err(io(id))?;
            file.write_at(&bytes[known..valid], known as u64).map_err(io(id))?;
            file.sync_all().map_err(io(id))?;
        }
    }
    Ok(out)
}

fn corrupt(segment: u32, offset: usize, what: impl Into<String>) -> RecoverError {
    RecoverError::Corrupt { segment, offset: offset as u32, what: what.into() }
}

/// Reads the valid records of one segment and returns where they end.
fn scan_segment(
    out: &mut Recovered,
    id: u32,
    bytes: &[u8],
    first: bool,
) -> Result<usize, RecoverError> {
    if bytes.get(..SEGMENT_HEAD) != Some(&segment_head(id)) {
        return Err(corrupt(id, 0, "not a segment of this version"));
    }
    let mut offset = SEGMENT_HEAD;
    loop {
        let at = Position { segment: id, offset: offset as u32 };
        let Parsed::Record { kind, durable, payload } = record::parse(&bytes[offset..], at) else {
            return Ok(offset);
        };
        out.durable = out.durable.max(durable);
        match kind {
            Kind::Entry => add_entry(out, at, payload)?,
            Kind::State => {
                let state = pb::LogState::decode(payload)
                    .map_err(|e| corrupt(id, offset, format!("state record: {e}")))?;
                set_state(out, &state, first && offset == SEGMENT_HEAD);
            }
            Kind::Value => {}
            _ => return Err(corrupt(id, offset, "a record of another kind of file")),
        }
        offset += record::size(payload.len());
        if offset >= bytes.len() {
            return Ok(bytes.len());
        }
    }
}

fn add_entry(out: &mut Recovered, at: Position, payload: &[u8]) -> Result<(), RecoverError> {
    let bad = |what: String| corrupt(at.segment, at.offset as usize, what);
    let (index, term, entry_type) =
        parse_entry(payload).ok_or_else(|| bad("an entry too short or of unknown type".into()))?;
    let expected = out.purged.map_or(0, |p| p.1 + 1) + out.slots.len() as u64;
    if index != expected {
        return Err(bad(format!("entry {index} where {expected} is due")));
    }
    out.slots.push_back(Slot { term, entry_type, at, data_len: data_len(payload), data: None });
    Ok(())
}

fn set_state(out: &mut Recovered, state: &pb::LogState, baseline: bool) {
    if let Some(vote) = state.vote {
        out.vote = Some(vote);
    }
    if let Some(id) = state.committed.map(native) {
        out.committed = Some(id);
    }
    if let Some(after) = state.truncate_after.map(native) {
        let base = out.purged.map_or(0, |p| p.1 + 1);
        if after.1 + 1 < base {
            // The entry before this segment, from which we began, is among the void ones. (What
            // was really purged was committed, and is never void.)
            out.purged = Some(after);
        }
        out.slots.truncate((after.1 + 1).saturating_sub(base) as usize);
    }
    if state.truncate_all {
        out.purged = None;
        out.slots.clear();
    }
    if let Some(id) = state.purged.map(native) {
        purge(out, id);
    }
    // Entries before the first segment that is read are as good as purged: the checkpoint that
    // named this segment covers them.
    if baseline && let Some(id) = state.previous.map(native) {
        purge(out, id);
    }
}

fn purge(out: &mut Recovered, upto: LogId) {
    let base = out.purged.map_or(0, |p| p.1 + 1);
    if upto.1 >= base {
        let drop = ((upto.1 + 1 - base) as usize).min(out.slots.len());
        out.slots.drain(..drop);
        out.purged = Some(upto);
    }
}

/// Fails if any record behind `valid` proves that `valid` had been synced.
fn check_torn(id: u32, bytes: &[u8], valid: usize) -> Result<(), RecoverError> {
    let mut offset = valid.next_multiple_of(8);
    while offset + record::HEADER <= bytes.len() {
        let at = Position { segment: id, offset: offset as u32 };
        let head: [u8; 8] = bytes[offset..offset + 8].try_into().expect("eight bytes");
        if head == [0; 8] {
            offset += 8;
            continue;
        }
        if let Parsed::Record { durable, .. } = record::parse(&bytes[offset..], at) {
            let lost = Position { segment: id, offset: valid as u32 };
            if durable > lost {
                return Err(corrupt(
                    id,
                    valid,
                    "a synced record is invalid while later ones are not",
                ));
            }
        }
        offset += 8;
    }
    Ok(())
}
