//! The stream of `etcdctl snapshot save`.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use etcd_api::pb::mvccpb::KeyValue;
use prost::Message;
use prost::encoding::encoded_len_varint;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{StoredLease, bucket, revision_key};
use crate::bolt::write::{Bucket, Small};
use crate::machine::load::KEYS_PER_BLOCK;
use crate::machine::view::View;
use crate::mvcc::Values;
use crate::mvcc::history::Version;
use crate::mvcc::index::Key;
use crate::mvcc::range::key_value;
use crate::pb;
use crate::storage::files::Files;

const PIECE: usize = 64 << 10;

/// Sends a view through `send(piece, bytes that remain)`, which says whether to go on.
pub fn write(mut view: View, mut send: impl FnMut(Bytes, u64) -> bool) -> io::Result<()> {
    let keys = Keys::of(&mut view)?;
    let small = small_buckets(&view.head);
    let mut buckets: Vec<&dyn Bucket> = small.iter().map(|b| b as &dyn Bucket).collect();
    buckets.push(&keys);
    buckets.sort_by(|a, b| a.name().cmp(b.name()));
    let mut hash = Sha256::new();
    let hash_len = Sha256::output_size() as u64;
    let mut pending = BytesMut::new();
    crate::bolt::write::write(&buckets, |piece, left| {
        hash.update(&piece);
        pending.extend_from_slice(&piece);
        if left > 0 && pending.len() < PIECE {
            return true;
        }
        send(pending.split().freeze(), left + hash_len)
    })?;
    send(Bytes::copy_from_slice(&hash.finalize()), 0);
    Ok(())
}

/// Every version of every key that no compaction has made unreachable, by revision.
struct Keys {
    versions: Vec<(Key, Version)>,
    files: Arc<Files>,
}

impl Keys {
    fn of(view: &mut View) -> io::Result<Self> {
        let compacted = view.head.compacted;
        let mut versions = Vec::new();
        loop {
            let keys = view.next(KEYS_PER_BLOCK)?;
            if keys.is_empty() {
                break;
            }
            for (key, all) in keys {
                let from = all.partition_point(|v| v.main <= compacted).saturating_sub(1);
                let kept = all[from..].iter().filter(|v| !v.is_tombstone() || v.main > compacted);
                versions.extend(kept.map(|v| (Arc::clone(&key), *v)));
            }
        }
        versions.sort_unstable_by_key(|(_, v)| (v.main, v.sub));
        Ok(Self { versions, files: view.files() })
    }
}

/// A version as it is stored, but for its value.
fn without_value(key: &[u8], v: &Version) -> KeyValue {
    if v.is_tombstone() {
        return KeyValue { key: key.to_vec().into(), ..Default::default() };
    }
    KeyValue {
        key: key.to_vec().into(),
        create_revision: v.create,
        mod_revision: v.main,
        version: v.version,
        lease: v.lease,
        value: Bytes::new(),
    }
}

impl Bucket for Keys {
    fn name(&self) -> &str {
        bucket::KEY
    }

    fn count(&self) -> usize {
        self.versions.len()
    }

    fn key(&self, at: usize) -> Vec<u8> {
        let v = &self.versions[at].1;
        revision_key(v.main, i64::from(v.sub), v.is_tombstone())
    }

    fn value_len(&self, at: usize) -> usize {
        let (key, v) = &self.versions[at];
        let value = match u64::from(v.value.len) {
            _ if v.is_tombstone() => 0,
            0 => 0,
            len => 1 + encoded_len_varint(len) + len as usize,
        };
        without_value(key, v).encoded_len() + value
    }

    fn value(&self, at: usize) -> io::Result<Vec<u8>> {
        let (key, v) = &self.versions[at];
        let kv = match v.is_tombstone() {
            true => without_value(key, v),
            false => key_value(key, v, Some(self.files.as_ref() as &dyn Values))?,
        };
        Ok(kv.encode_to_vec())
    }
}

fn small_buckets(head: &pb::StateHead) -> Vec<Small> {
    let auth = head.auth.clone().unwrap_or_default();
    let lease = |l: &pb::LeaseGrant| {
        let stored = StoredLease { id: l.id, ttl: l.ttl, remaining: l.remaining };
        (l.id.to_be_bytes().to_vec(), stored.encode_to_vec())
    };
    let text = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let mut small = vec![
        Small {
            name: bucket::ALARM,
            pairs: head.alarms.iter().map(|a| (a.encode_to_vec(), Vec::new())).collect(),
        },
        Small {
            name: bucket::AUTH,
            pairs: vec![
                (b"authEnabled".to_vec(), vec![u8::from(auth.enabled)]),
                (b"authRevision".to_vec(), auth.revision.to_be_bytes().to_vec()),
            ],
        },
        Small {
            name: bucket::ROLES,
            pairs: auth.roles.iter().map(|r| (r.name.to_vec(), r.encode_to_vec())).collect(),
        },
        Small {
            name: bucket::USERS,
            pairs: auth.users.iter().map(|u| (u.name.to_vec(), u.encode_to_vec())).collect(),
        },
        Small {
            name: bucket::CLUSTER,
            pairs: vec![text("clusterVersion", crate::STORAGE_VERSION)],
        },
        Small { name: bucket::LEASE, pairs: head.leases.iter().map(lease).collect() },
        Small { name: bucket::MEMBERS, pairs: head.members.iter().map(member).collect() },
        Small { name: bucket::REMOVED, pairs: Vec::new() },
        Small { name: bucket::META, pairs: meta(head) },
    ];
    for bucket in &mut small {
        bucket.pairs.sort();
    }
    small
}

fn member(member: &pb::MemberInfo) -> (Vec<u8>, Vec<u8>) {
    let json = json!({
        "id": member.id, "name": member.name,
        "peerURLs": member.peer_urls, "clientURLs": member.client_urls,
    });
    (format!("{:x}", member.id).into_bytes(), json.to_string().into_bytes())
}

fn meta(head: &pb::StateHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    let applied = head.applied.unwrap_or_default();
    let mut pairs = vec![
        (b"consistent_index".to_vec(), applied.index.to_be_bytes().to_vec()),
        (b"term".to_vec(), applied.term.to_be_bytes().to_vec()),
        (b"storageVersion".to_vec(), crate::STORAGE_VERSION.as_bytes().to_vec()),
    ];
    if head.compacted > 0 {
        let revision = revision_key(head.compacted, 0, false);
        pairs.push((b"scheduledCompactRev".to_vec(), revision.clone()));
        pairs.push((b"finishedCompactRev".to_vec(), revision));
    }
    pairs
}
