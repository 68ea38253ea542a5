//! bbolt's file format, as far as a whole file needs it that is written once or read once:
//! `etcdctl snapshot save` receives one, `etcdutl snapshot restore` leaves one.
//!
//! A file is a sequence of pages of one size. Page 0 and 1 are metas; the valid one with the higher
//! transaction counts. A bucket is a B+ tree of leaf and branch pages in key order; the root bucket
//! holds the others by name. All integers are little-endian.
//!
//! ```text
//!  page    id u64, flags u16, count u16, overflow u32 (pages that follow and belong to it)
//!  leaf    per element: flags u32, position u32, key size u32, value size u32; then keys, values
//!  branch  per element: position u32, key size u32, page u64; then keys
//!  meta    magic, version, page size, flags (u32); root page, sequence, freelist page,
//!          pages in the file, transaction (u64); FNV-1a of all that (u64)
//! ```
//!
//! Positions count from the element itself. A bucket's value in the root is its root page and a
//! sequence number; a small bucket may stand there whole, as a page behind them (root page 0).
//!
//! Source: go.etcd.io/bbolt, `internal/common`.

pub mod read;
pub mod write;

#[cfg(test)]
mod tests;

const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const BUCKET_HEADER: usize = 16;
/// Bytes of a meta before its checksum.
const META_SUMMED: usize = 56;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
/// Flag of a leaf's element: it is a bucket.
const IS_BUCKET: u32 = 1;

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
