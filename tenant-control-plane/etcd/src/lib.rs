//! etcd (module documentation follows).

pub mod authority;
pub mod background;
pub mod backup;
pub mod config;
pub mod flags;
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
