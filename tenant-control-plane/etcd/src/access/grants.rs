//! Ranges of keys that a user may read or write.

use std::collections::BTreeMap;

use etcd_api::pb::authpb::permission::Type;
use etcd_api::pb::authpb::{Permission, Role};

/// What a user may do, from all of its roles.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    read: Ranges,
    write: Ranges,
}

/// What a request wants to do with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// See them.
    Read,
    /// Change them.
    Write,
}

impl Grants {
    /// The sum of roles. Those that are not there add nothing.
    pub fn of(names: &[String], roles: &BTreeMap<String, Role>) -> Self {
        let mut grants = Self::default();
        for permission in names.iter().filter_map(|n| roles.get(n)).flat_map(|r| &r.key_permission)
        {
            let range = bounds(&permission.key, &permission.range_end);
            if permission.perm_type() != Type::Write {
                grants.read.0.push(range.clone());
            }
            if permission.perm_type() != Type::Read {
                grants.write.0.push(range);
            }
        }
        grants.read.merge();
        grants.write.merge();
        grants
    }

    /// Whether all keys of a request's range are within.
    pub fn cover(&self, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        let ranges = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        ranges.contain(&bounds(key, range_end))
    }
}

/// Whether a permission's range can be granted.
pub fn is_range(permission: &Permission) -> bool {
    let (key, end) = (&permission.key, &permission.range_end);
    !key.is_empty() && (end.is_empty() || key < end || end[..] == [0])
}

/// First key, and the first one behind; `None`: to the end of the key space.
type Range = (Vec<u8>, Option<Vec<u8>>);

/// The keys that a request's key and range end mean.
fn bounds(key: &[u8], range_end: &[u8]) -> Range {
    let end = match range_end {
        [] => Some([key, &[0]].concat()),
        [0] => None,
        end => Some(end.to_vec()),
    };
    (key.to_vec(), end)
}

/// Ranges in order that do not touch, once merged.
#[derive(Debug, Clone, Default)]
struct Ranges(Vec<Range>);

impl Ranges {
    fn merge(&mut self) {
        self.0.sort();
        let mut merged: Vec<Range> = Vec::new();
        for (start, end) in self.0.drain(..) {
            match merged.last_mut() {
                Some((_, None)) => break,
                Some((_, last)) if last.as_ref().is_some_and(|last| start <= *last) => {
                    if end.is_none() || end > *last {
                        *last = end;
                    }
                }
                _ => merged.push((start, end)),
            }
        }
        self.0 = merged;
    }

    fn contain(&self, (start, end): &Range) -> bool {
        let after = self.0.partition_point(|(first, _)| first <= start);
        let Some((_, last)) = after.checked_sub(1).map(|i| &self.0[i]) else { return false };
        match (last, end) {
            (None, _) => true,
            (Some(last), Some(end)) => start < last && end <= last,
            (Some(_), None) => false,
        }
    }
}
