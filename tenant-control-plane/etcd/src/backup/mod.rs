//! Snapshots as etcd's tools know them: a bbolt file with etcd's buckets, and behind it the SHA-256
//! of all of it. `etcdctl snapshot save` receives one ([`export`]); `etcdutl snapshot restore`
//! makes a data directory of it, from which a new cluster begins ([`import`]) — upstream's etcd as
//! well as ours.

pub mod export;
pub mod import;

use prost::Message;

/// A key's revision as it is a key itself: main, `_`, sub; a tombstone ends in `t`.
const REVISION: usize = 17;

mod bucket {
    pub const ALARM: &str = "alarm";
    pub const AUTH: &str = "auth";
    pub const ROLES: &str = "authRoles";
    pub const USERS: &str = "authUsers";
    pub const CLUSTER: &str = "cluster";
    pub const KEY: &str = "key";
    pub const LEASE: &str = "lease";
    pub const MEMBERS: &str = "members";
    pub const REMOVED: &str = "members_removed";
    pub const META: &str = "meta";
}

fn revision_key(main: i64, sub: i64, is_tombstone: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(REVISION + 1);
    key.extend(main.to_be_bytes());
    key.push(b'_');
    key.extend(sub.to_be_bytes());
    if is_tombstone {
        key.push(b't');
    }
    key
}

/// Main, sub, and whether it is a tombstone.
fn parse_revision(key: &[u8]) -> Option<(i64, i64, bool)> {
    let number = |at: usize| Some(i64::from_be_bytes(key.get(at..at + 8)?.try_into().ok()?));
    let (main, sub) = (number(0)?, number(9)?);
    let is_tombstone = match key.get(REVISION..)? {
        [] => false,
        [b't'] => true,
        _ => return None,
    };
    (key[8] == b'_' && main >= 0 && sub >= 0).then_some((main, sub, is_tombstone))
}

/// `leasepb.Lease`.
#[derive(Clone, PartialEq, Message)]
struct StoredLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_keys_in_their_order() {
        let keys =
            [(1, 0, false), (1, 1, true), (2, 0, false), (300, 0, true)].map(|(main, sub, t)| {
                let key = revision_key(main, sub, t);
                assert_eq!(parse_revision(&key), Some((main, sub, t)));
                key
            });
        assert!(keys.is_sorted());
        for bad in [&b""[..], b"12345678_1234567", b"12345678-12345678", b"12345678_12345678x"] {
            assert_eq!(parse_revision(bad), None);
        }
    }
}
