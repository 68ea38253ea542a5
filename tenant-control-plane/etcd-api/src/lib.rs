//! The etcd v3 protocol: generated messages, client and server stubs ([`pb`]), the texts and
//! codes of etcd's errors ([`error`]), and a connection to a cluster ([`client`]).
//!
//! This crate holds wire facts only. It never stores anything, and it does not know our server:
//! `kube-apiserver` links this crate and meets `etcd` (ours or upstream's) on the wire.
//!
//! ```text
//!  kube-apiserver ──► client::Client ──► tonic channels, one per member ──► any etcd v3 server
//!                                        (each falls over to the next member by itself)
//! ```
//!
//! Invariants:
//! - Package, service, message and field names and numbers are etcd's (`etcdserverpb.KV`, …), so
//!   that unmodified clients and servers interoperate.
//! - All `bytes` fields are [`bytes::Bytes`](prost::bytes::Bytes).
//!
//! Next: a request leaves through [`client::Client`] and arrives in the crate `etcd`, module `grpc`.

pub mod client;
pub mod error;
pub mod tls;

/// Generated from `proto/*.proto`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod pb {
    /// Key-values and events.
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    /// Users, roles and permissions.
    pub mod authpb {
        tonic::include_proto!("authpb");
    }
    /// The services and their messages.
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
    /// Locks.
    pub mod v3lockpb {
        tonic::include_proto!("v3lockpb");
    }
    /// Elections.
    pub mod v3electionpb {
        tonic::include_proto!("v3electionpb");
    }
}

/// The protocol itself: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors"));

/// The end of the range that holds every key that starts with `prefix`: the prefix with its last
/// byte below 0xff raised by one, and what follows cut off. An empty or all-0xff prefix has no
/// such end and gives `\0`, which in a request means "to the end of the key space".
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn prefix_end_raises_the_last_byte_that_can_be_raised() {
        assert_eq!(prefix_end(b"/registry/pods/"), b"/registry/pods0");
        assert_eq!(prefix_end(&[b'a', 0xff]), b"b");
        assert_eq!(prefix_end(&[0xff]), [0]);
        assert_eq!(prefix_end(b""), [0]);
    }
}
