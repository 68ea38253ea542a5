//! A checkpoint: the whole index at one log position, in one file.
//!
//! The file is a sequence of records ([`super::record`]): one head (a `StateHead`), any number of
//! key blocks (`SnapshotItems`, in key order), one end that repeats the number of keys. It is
//! written beside the old one, synced, and renamed over it, so that there is always exactly one
//! complete checkpoint or none.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;

use super::disk::{Disk, Sequential};
use super::record::{self, HEADER, Kind, Parsed, Position};
use crate::pb;

const NAME: &str = "checkpoint";

/// Records are placed by their offset in units of 8 bytes, so that a file may exceed 4 GiB.
fn place(offset: u64) -> Position {
    Position { segment: 0, offset: (offset / 8) as u32 }
}

/// A checkpoint that is being written.
pub struct Writer {
    disk: Arc<dyn Disk>,
    out: BufWriter<Sequential>,
    tmp: PathBuf,
    dir: PathBuf,
    offset: u64,
    keys: u64,
    buf: Vec<u8>,
}

impl Writer {
    /// Starts a checkpoint in `dir`.
    pub fn create(disk: &Arc<dyn Disk>, dir: &Path, head: &pb::StateHead) -> io::Result<Self> {
        let tmp = dir.join("checkpoint.tmp");
        let file = Sequential::new(disk.create(&tmp)?);
        let mut writer = Self {
            disk: Arc::clone(disk),
            out: BufWriter::with_capacity(1 << 18, file),
            tmp,
            dir: dir.to_owned(),
            offset: 0,
            keys: 0,
            buf: Vec::new(),
        };
        writer.record(Kind::Head, &head.encode_to_vec())?;
        Ok(writer)
    }

    fn record(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        self.buf.clear();
        let at = place(self.offset);
        record::write(&mut self.buf, at, Position::default(), kind, &[payload]);
        self.offset += self.buf.len() as u64;
        self.out.write_all(&self.buf)
    }

    /// Adds keys.
    pub fn keys(&mut self, keys: Vec<pb::KeyHistory>) -> io::Result<()> {
        self.keys += keys.len() as u64;
        self.record(Kind::Keys, &pb::SnapshotItems { keys }.encode_to_vec())
    }

    /// Makes it the checkpoint; returns its size.
    pub fn finish(mut self) -> io::Result<u64> {
        let end = pb::SnapshotEnd { keys: self.keys };
        self.record(Kind::End, &end.encode_to_vec())?;
        let written = self.out.into_inner().map_err(|e| e.into_error())?;
        written.file.sync_all()?;
        self.disk.rename(&self.tmp, &self.dir.join(NAME))?;
        self.disk.sync_dir(&self.dir)?;
        Ok(self.offset)
    }
}

fn invalid(what: &str, offset: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("checkpoint is corrupt at byte {offset}: {what}"),
    )
}

/// Reads the checkpoint in `dir`, if there is one: the head, and every key through `key`.
pub fn read(
    disk: &dyn Disk,
    dir: &Path,
    mut head: impl FnMut(pb::StateHead),
    mut key: impl FnMut(pb::KeyHistory),
) -> io::Result<bool> {
    let file = match disk.open(&dir.join(NAME)) {
        Ok(f) => f,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let length = file.len()?;
    let mut input = BufReader::with_capacity(1 << 18, Sequential::new(file));
    let (mut offset, mut keys) = (0, 0);
    loop {
        let bytes = next(&mut input, offset, length)?;
        let Parsed::Record { kind, payload, .. } = record::parse(&bytes, place(offset)) else {
            return Err(invalid("a record fails its checksum", offset));
        };
        let decode = |e: prost::DecodeError| invalid(&e.to_string(), offset);
        match (kind, offset) {
            (Kind::Head, 0) => head(pb::StateHead::decode(payload).map_err(decode)?),
            (Kind::Keys, 1..) => {
                for item in pb::SnapshotItems::decode(payload).map_err(decode)?.keys {
                    keys += 1;
                    key(item);
                }
            }
            (Kind::End, 1..) => {
                let end = pb::SnapshotEnd::decode(payload).map_err(decode)?;
                return if end.keys == keys {
                    Ok(true)
                } else {
                    Err(invalid("keys are missing", offset))
                };
            }
            _ => return Err(invalid("a record out of order", offset)),
        }
        offset += bytes.len() as u64;
    }
}

/// The bytes of one record, with its padding.
fn next(input: &mut impl Read, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER];
    input.read_exact(&mut bytes).map_err(|_| invalid("it ends early", offset))?;
    let len = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    let size = record::size(len);
    if size as u64 > length - offset {
        return Err(invalid("a record is longer than the file", offset));
    }
    bytes.resize(size, 0);
    input.read_exact(&mut bytes[HEADER..]).map_err(|_| invalid("it ends early", offset))?;
    Ok(bytes)
}
