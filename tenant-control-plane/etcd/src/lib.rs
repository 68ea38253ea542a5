//! etcd: the v3 API over a raft log and a multi-version key-value store.
//!
//! ```text
//!  client ─TLS─► server ─► grpc::{kv,watch,lease,cluster,…}
//!                              │ reads              │ writes
//!                              │                    ▼
//!                              │        propose: many requests, one batch
//!                              │                    ▼
//!                              │        raft: replicate, sync, commit ──► other members
//!                              ▼                    ▼
//!                           machine ◄──── apply: one revision per request
//!                              │                    │
//!                    storage: values in the log     └─► watch::hub ─► watch streams
//! ```
//!
//! A request for a change becomes a `Proposal`; those that arrive together become one `Batch`,
//! which is one raft entry. When it is committed, every member applies it to its [`machine`]; the
//! member where the request came in finds the waiting caller by the proposal's id. A linearizable
//! read asks the leader for the read index (many reads share one question), waits until that
//! index is applied here, and reads here.
//!
//! This process never forwards a client to another member, never reads the clock to decide what
//! is stored (leases end when the leader proposes it), and never answers a write before a quorum
//! has it on disk.
//!
//! # On disk
//!
//! `<data-dir>/member/` holds `identity.json` (ids of the member and its cluster), numbered
//! segments `NNNNNNNNNN.seg`, and at most one `checkpoint`. All integers are little-endian.
//!
//! **Segment**: `MARINALG`, version (u32), own number (u32), then records. The file is reserved in
//! advance; zeros are its unused end. **Record** ([`storage::record`]): length, CRC-32 over
//! position and content, durable mark, kind, payload, padding to 8 bytes. Kinds:
//!
//! - *Entry*: raft index, term, type, then the batch (or membership) as it came from the leader.
//! - *State*: what changed of vote, committed and purged position, or a truncation. The first
//!   record of each segment carries all of it, so that a recovery may begin at any segment.
//! - *Value*: a value that came with a snapshot, or was moved out of a segment that is to go.
//!
//! **Values live in the log.** The index in memory keeps, for each version of each key, a
//! reference (segment, offset, length, CRC-32) into the record that brought it. A put is written
//! once, and a value is read from the page cache when it is asked for.
//!
//! **Checkpoint** ([`storage::checkpoint`]): the index and everything else at one applied entry:
//! head, blocks of keys with their references, end. It is written while writing goes on (MVCC
//! gives the consistent view), beside the old one, and renamed. It is due after
//! `--snapshot-count` entries or 64 MiB, but not before the log has grown by as much as the
//! checkpoint will take. After it, raft purges the log but for `--snapshot-catchup-entries`, dead
//! segments are deleted, and what sparse ones still hold is moved to the end of the log.
//!
//! # Invariants
//!
//! 1. *Index and data are one record.* State is a function of the applied entries; applying
//!    writes nothing, so there is no second place that could disagree. A recovery reads the
//!    checkpoint and applies the committed entries behind it.
//! 2. *Acknowledged is synced on a quorum.* The leader counts itself only when its own sync is
//!    done. Appends of one moment share one `fdatasync` ([`storage::flush`]).
//! 3. *A failed write or sync is final*: the process aborts, because the kernel may have dropped
//!    what it could not write. The next start writes the unproven end of the log once more.
//! 4. *Torn is not rotten.* A segment is synced and cut before the next is created, and a restart
//!    never appends to an old one. Only the newest may end in an invalid record, and only if no
//!    later record says that this place had been synced; anything else refuses to start.
//! 5. *What is read is checked*: values against their CRC at each read, records when read back.
//! 6. *Nothing that is referred to is deleted*: a segment goes only when the checkpoint on disk
//!    and the state in memory both hold nothing in it, and the log begins behind it.
//! 7. *Members agree*: a SHA-256 chain over all applied entries and what they did is part of the
//!    state; the leader compares it with the others' every few seconds ([`compare`]). A member that
//!    differs raises CORRUPT and serves no more.
//!
//! # Beginning from a snapshot
//!
//! `etcdctl snapshot save` gets a file in etcd's own format ([`bolt`], [`backup::export`]). What
//! `etcdutl snapshot restore` makes of one stands as `snap/db` in a fresh directory, is taken over at
//! the first start ([`backup::import`]), and stands for the first entry of the log.
//!
//! # Where to go next
//!
//! A change: [`grpc::kv`] → [`propose`] → [`raft`] → [`machine::apply`] → [`mvcc::txn`]. A watch:
//! [`grpc::watch`] and [`watch::hub`]. A start: [`run`], [`machine::load`], [`storage::recover`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod authority;
pub mod background;
pub mod backup;
pub mod bolt;
pub mod compare;
pub mod config;
pub mod flags;
pub mod gateway;
pub mod grpc;
pub mod identity;
pub mod lease;
pub mod machine;
pub mod metrics;
pub mod mvcc;
pub mod node;
pub mod propose;
pub mod raft;
pub mod run;
pub mod server;
pub mod storage;
pub mod threads;
pub mod watch;

/// The version that clients are told: the etcd release whose API this is.
pub const VERSION: &str = "3.6.0";
/// etcd's name for the generation of its stored data.
pub const STORAGE_VERSION: &str = "3.6.0";

/// Messages between members and on disk, generated from `proto/peer.proto`.
#[allow(missing_docs, clippy::all)]
pub mod pb {
    tonic::include_proto!("marina.etcd");
}
