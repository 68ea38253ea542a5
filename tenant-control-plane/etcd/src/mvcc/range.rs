//! Answering a range request.

use std::io;
use std::sync::Arc;

use etcd_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd_api::pb::etcdserverpb::{RangeRequest, RangeResponse};
use etcd_api::pb::mvccpb::KeyValue;

use super::Values;
use super::history::Version;
use super::index::{Index, Key, KeyRange};

/// A key at a revision, without its value.
pub type Found = (Key, Version);

/// The keys that a request selects. Fed in pieces, so that a long range need not hold the store's
/// lock throughout.
#[derive(Debug, Default)]
pub struct Selection {
    found: Vec<Found>,
    count: i64,
    /// The last key that was visited.
    after: Option<Key>,
}

/// Default order, no filter: then a limit can cut the scan's output short.
fn streams(r: &RangeRequest) -> bool {
    let by_key = r.sort_target() == SortTarget::Key && r.sort_order() == SortOrder::Ascend;
    (by_key || r.sort_order() == SortOrder::None) && !filters(r)
}

fn filters(r: &RangeRequest) -> bool {
    r.min_mod_revision != 0
        || r.max_mod_revision != 0
        || r.min_create_revision != 0
        || r.max_create_revision != 0
}

fn passes(r: &RangeRequest, v: &Version) -> bool {
    (r.min_mod_revision == 0 || v.main >= r.min_mod_revision)
        && (r.max_mod_revision == 0 || v.main <= r.max_mod_revision)
        && (r.min_create_revision == 0 || v.create >= r.min_create_revision)
        && (r.max_create_revision == 0 || v.create <= r.max_create_revision)
}

impl Selection {
    /// Visits up to `max_keys` keys of the index at revision `at`; returns whether there are more.
    pub fn feed(
        &mut self,
        index: &Index,
        r: &RangeRequest,
        range: &KeyRange,
        at: i64,
        max_keys: usize,
    ) -> bool {
        let keep = match r.limit {
            _ if r.count_only => 0,
            // One more than the limit tells whether there is more.
            n if n > 0 && streams(r) => (n as usize).saturating_add(1),
            _ => usize::MAX,
        };
        let after = self.after.take();
        let mut visited = 0;
        for (key, history) in index.range(range, after.as_deref()) {
            visited += 1;
            if let Some(version) = history.at(at) {
                self.count += 1;
                if self.found.len() < keep && passes(r, version) {
                    self.found.push((Arc::clone(key), *version));
                }
            }
            if visited == max_keys {
                self.after = Some(Arc::clone(key));
                return true;
            }
        }
        false
    }

    /// Sorts, cuts and loads the values. The header is the caller's.
    pub fn respond(self, r: &RangeRequest, values: &dyn Values) -> io::Result<RangeResponse> {
        let mut found = self.found;
        let order = match r.sort_order() {
            SortOrder::None if r.sort_target() != SortTarget::Key => SortOrder::Ascend,
            order => order,
        };
        let by_value = r.sort_target() == SortTarget::Value;
        let mut loaded = Vec::new();
        if by_value {
            loaded = load(&found, values, false)?;
            loaded.sort_by(|a, b| a.value.cmp(&b.value));
            if order == SortOrder::Descend {
                loaded.reverse();
            }
        } else {
            sort(&mut found, r.sort_target(), order);
        }
        let total = found.len();
        let limit = usize::try_from(r.limit).ok().filter(|n| *n > 0);
        let limit = limit.unwrap_or(usize::MAX);
        if by_value {
            loaded.truncate(limit);
            if r.keys_only {
                loaded.iter_mut().for_each(|kv| kv.value.clear());
            }
        } else {
            found.truncate(limit);
            loaded = load(&found, values, r.keys_only)?;
        }
        Ok(RangeResponse { header: None, kvs: loaded, more: total > limit, count: self.count })
    }
}

fn sort(found: &mut [Found], target: SortTarget, order: SortOrder) {
    match target {
        // The index is in key order already.
        SortTarget::Key | SortTarget::Value => {}
        SortTarget::Version => found.sort_by_key(|(_, v)| v.version),
        SortTarget::Create => found.sort_by_key(|(_, v)| v.create),
        SortTarget::Mod => found.sort_by_key(|(_, v)| v.main),
    }
    if order == SortOrder::Descend {
        found.reverse();
    }
}

fn load(found: &[Found], values: &dyn Values, keys_only: bool) -> io::Result<Vec<KeyValue>> {
    found.iter().map(|(key, v)| key_value(key, v, (!keys_only).then_some(values))).collect()
}

/// The wire form of a version; without `values` the value stays empty.
pub fn key_value(key: &[u8], v: &Version, values: Option<&dyn Values>) -> io::Result<KeyValue> {
    Ok(KeyValue {
        key: key.to_vec().into(),
        create_revision: v.create,
        mod_revision: v.main,
        version: v.version,
        value: values.map_or(Ok(Default::default()), |f| f.load(v.value))?,
        lease: v.lease,
    })
}
