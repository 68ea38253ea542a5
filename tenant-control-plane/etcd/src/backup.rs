//! The stream of `etcdctl snapshot save`.
//!
//! The format is ours: the eight bytes `MARINASN`, then length-prefixed protobuf messages
//! (`SnapshotChunk`: head, items, end), then zeros up to a multiple of 512, then, outside of that
//! multiple, the SHA-256 of everything before it. The last two rules are etcd's and are what its
//! tools check.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::machine::load::KEYS_PER_BLOCK;
use crate::machine::view::View;
use crate::pb;
use crate::pb::snapshot_chunk::Part;

const MAGIC: &[u8; 8] = b"MARINASN";
const PIECE: usize = 64 << 10;

/// Sends a view through `send(piece, bytes that remain)`, which says whether to go on.
///
/// `remaining` is exact only at the end: while sending it is what has not been sent of an
/// estimate, never 0 before the last piece.
pub fn write(mut view: View, mut send: impl FnMut(Bytes, u64) -> bool) -> io::Result<()> {
    let mut hash = Sha256::new();
    let mut total = 0_u64;
    let mut pending = BytesMut::new();
    pending.put_slice(MAGIC);
    put(&mut pending, Part::Head(head(&view)));
    let mut keys_sent = 0_u64;
    let keys_total = view.head.keys.max(1);
    loop {
        let keys = view.next(KEYS_PER_BLOCK / 8);
        if keys.is_empty() {
            break;
        }
        keys_sent += keys.len() as u64;
        let keys = view.with_values(keys)?;
        put(&mut pending, Part::Items(pb::SnapshotItems { keys }));
        while pending.len() >= PIECE {
            let piece = pending.split_to(PIECE).freeze();
            hash.update(&piece);
            total += piece.len() as u64;
            let left = keys_total.saturating_sub(keys_sent).max(1);
            if !send(piece, left.saturating_mul(total / keys_sent.max(1)).max(1)) {
                return Ok(());
            }
        }
    }
    put(&mut pending, Part::End(pb::SnapshotEnd { keys: keys_sent }));
    let unpadded = total + pending.len() as u64;
    let padded = unpadded.next_multiple_of(512);
    pending.resize(pending.len() + (padded - unpadded) as usize, 0);
    hash.update(&pending);
    pending.put_slice(&hash.finalize());
    while !pending.is_empty() {
        let piece = pending.split_to(PIECE.min(pending.len())).freeze();
        if !send(piece, pending.len() as u64) {
            break;
        }
    }
    Ok(())
}

fn head(view: &View) -> pb::SnapshotHead {
    pb::SnapshotHead { vote: None, cluster_id: 0, state: Some(view.head.clone()) }
}

fn put(out: &mut BytesMut, part: Part) {
    let chunk = pb::SnapshotChunk { part: Some(part) };
    chunk.encode_length_delimited(out).expect("a growing buffer has room");
}
