//! The requests, as kube-apiserver sends them (`k8s.io/apiserver/pkg/storage/etcd3`).

use bytes::Bytes;
use etcd_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd_api::pb::etcdserverpb::request_op::Request;
use etcd_api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use super::VALUE;

/// Values that neither repeat nor compress, without a copy for each.
#[derive(Clone)]
pub struct Values(Bytes);

impl Values {
    /// Bytes from which values are cut.
    const POOL: usize = 1 << 20;

    /// The same ones in every run.
    pub fn new() -> Self {
        // Marsaglia's xorshift with the period 2⁶⁴ - 1.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        Self((0..Self::POOL / 8).flat_map(|_| next()).collect())
    }

    /// The value of an operation.
    pub fn of(&self, index: usize) -> Bytes {
        let from = index * 7_919 % (Self::POOL - VALUE);
        self.0.slice(from..from + VALUE)
    }
}

/// A put without conditions.
pub fn put(key: &str, value: Bytes) -> PutRequest {
    PutRequest { key: owned(key), value, ..Default::default() }
}

/// A read of one key.
pub fn get(key: &str, serializable: bool) -> RangeRequest {
    RangeRequest { key: owned(key), serializable, ..Default::default() }
}

/// A page of all keys from `first` on that start with `prefix`.
pub fn page(prefix: &str, first: &str, limit: i64, serializable: bool) -> RangeRequest {
    RangeRequest {
        key: owned(first),
        range_end: etcd_api::prefix_end(prefix.as_bytes()).into(),
        limit,
        serializable,
        ..Default::default()
    }
}

/// Puts a key whose revision is still `revision`, else reads it; 0: a key that does not exist.
pub fn put_if(key: &str, revision: i64, value: Bytes) -> TxnRequest {
    conditional(key, revision, Request::RequestPut(put(key, value)))
}

/// Deletes a key whose revision is still `revision`, else reads it.
pub fn delete_if(key: &str, revision: i64) -> TxnRequest {
    let delete = DeleteRangeRequest { key: owned(key), ..Default::default() };
    conditional(key, revision, Request::RequestDeleteRange(delete))
}

fn conditional(key: &str, revision: i64, then: Request) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: owned(key),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    };
    let operation = |request| vec![RequestOp { request: Some(request) }];
    TxnRequest {
        compare: vec![compare],
        success: operation(then),
        failure: operation(Request::RequestRange(get(key, false))),
    }
}

fn owned(key: &str) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_differ_and_have_their_size() {
        let values = Values::new();
        assert_eq!(values.of(usize::MAX / 10_000).len(), VALUE);
        assert_ne!(values.of(1), values.of(2));
        let mut counts = [0_usize; 256];
        values.of(3).iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.into_iter().max() < Some(20), "no byte is frequent: {counts:?}");
    }
}
