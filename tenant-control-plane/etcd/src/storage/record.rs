//! The unit of everything on disk: a checksummed record.
//!
//! ```text
//! offset  size
//!      0     4  length of the payload
//!      4     4  CRC-32 over (segment id, offset of the record, bytes 8.. of the header, length, payload)
//!      8     8  durable mark: the position up to which this member's log was known to be synced
//!     16     1  kind
//!     17     7  zero
//!     24     …  payload, then zero padding to a multiple of 8
//! ```
//!
//! The checksum covers the position, so that a record that the disk wrote to a wrong place is not
//! believed. The durable mark tells a torn tail from rot: an invalid record at a position below
//! the mark of any later valid record had been synced, and its loss is corruption.

/// Bytes before the payload.
pub const HEADER: usize = 24;

/// A place in the log: segment, then byte in it. Ordered as the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Position {
    /// Segment id.
    pub segment: u32,
    /// Byte in the segment's file.
    pub offset: u32,
}

impl Position {
    /// As one number that orders like the position.
    pub fn to_u64(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.offset)
    }

    /// The inverse of [`Self::to_u64`].
    pub fn from_u64(n: u64) -> Self {
        Self { segment: (n >> 32) as u32, offset: n as u32 }
    }
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A raft log entry.
    Entry = 1,
    /// The log's own state: vote, committed, purged, truncation.
    State = 2,
    /// A value that was moved here, or came with a snapshot.
    Value = 3,
    /// Head of a checkpoint.
    Head = 4,
    /// Keys of a checkpoint.
    Keys = 5,
    /// End of a checkpoint.
    End = 6,
}

impl Kind {
    fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Kind::Entry,
            2 => Kind::State,
            3 => Kind::Value,
            4 => Kind::Head,
            5 => Kind::Keys,
            6 => Kind::End,
            _ => return None,
        })
    }
}

/// Size on disk of a record whose payload has `len` bytes.
pub fn size(len: usize) -> usize {
    (HEADER + len).next_multiple_of(8)
}

fn checksum(at: Position, tail: &[u8], len: u32, payload: &[u8]) -> u32 {
    let mut h = crc32fast::Hasher::new();
    h.update(&at.segment.to_le_bytes());
    h.update(&at.offset.to_le_bytes());
    h.update(tail);
    h.update(&len.to_le_bytes());
    h.update(payload);
    h.finalize()
}

/// Appends a record that will stand at `at`. The payload is given in parts.
pub fn write(out: &mut Vec<u8>, at: Position, durable: Position, kind: Kind, parts: &[&[u8]]) {
    let start = out.len();
    let len = parts.iter().map(|p| p.len()).sum::<usize>();
    let len32 = u32::try_from(len).expect("a record is far below 4 GiB");
    out.extend_from_slice(&len32.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&durable.to_u64().to_le_bytes());
    out.push(kind as u8);
    out.extend_from_slice(&[0; 7]);
    for part in parts {
        out.extend_from_slice(part);
    }
    let crc = checksum(at, &out[start + 8..start + HEADER], len32, &out[start + HEADER..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + size(len), 0);
}

/// What stands at a position.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A valid record.
    Record {
        /// Its kind.
        kind: Kind,
        /// Its durable mark.
        durable: Position,
        /// Its payload.
        payload: &'a [u8],
    },
    /// Zeros or the end of the file: nothing was written here.
    End,
    /// Bytes that are no valid record of this place.
    Invalid,
}

/// Reads the record at `at`, whose bytes begin `bytes`.
pub fn parse(bytes: &[u8], at: Position) -> Parsed<'_> {
    let Some(header) = bytes.get(..HEADER) else {
        return if bytes.iter().all(|b| *b == 0) { Parsed::End } else { Parsed::Invalid };
    };
    if header.iter().all(|b| *b == 0) {
        return Parsed::End;
    }
    let word = |i: usize| u32::from_le_bytes(header[i..i + 4].try_into().expect("four bytes"));
    let len = word(0);
    let Some(payload) = bytes.get(HEADER..HEADER + len as usize) else {
        return Parsed::Invalid;
    };
    let kind = Kind::from_u8(header[16]);
    match kind {
        Some(kind) if word(4) == checksum(at, &header[8..HEADER], len, payload) => Parsed::Record {
            kind,
            durable: Position::from_u64(u64::from_le_bytes(
                header[8..16].try_into().expect("eight bytes"),
            )),
            payload,
        },
        _ => Parsed::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { segment: 7, offset: 64 };

    #[test]
    fn a_record_reads_back_and_every_flipped_bit_is_noticed() {
        let durable = Position { segment: 6, offset: 5 };
        let mut buf = Vec::new();
        write(&mut buf, AT, durable, Kind::Entry, &[b"hello", b" world"]);
        assert_eq!(buf.len(), size(11));
        let expected = Parsed::Record { kind: Kind::Entry, durable, payload: b"hello world" };
        assert_eq!(parse(&buf, AT), expected);
        for bit in 0..(HEADER + 11) * 8 {
            let mut bad = buf.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(parse(&bad, AT), expected, "bit {bit}");
            assert!(!matches!(parse(&bad, AT), Parsed::Record { .. }), "bit {bit}");
        }
    }

    #[test]
    fn a_record_is_not_believed_at_another_place() {
        let mut buf = Vec::new();
        write(&mut buf, AT, AT, Kind::Entry, &[b"x"]);
        let moved = Position { offset: 72, ..AT };
        assert_eq!(parse(&buf, moved), Parsed::Invalid);
    }

    #[test]
    fn zeros_are_the_end() {
        assert_eq!(parse(&[0; 100], AT), Parsed::End);
        assert_eq!(parse(&[], AT), Parsed::End);
        assert_eq!(parse(&[1, 0, 0], AT), Parsed::Invalid);
    }
}
