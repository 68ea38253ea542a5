//! What can be refused by looking at a request alone.

use std::collections::BTreeSet;

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd_api::pb::etcdserverpb::request_op::Request;
use etcd_api::pb::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::mvcc::index::KeyRange;

type Checked = Result<(), EtcdError>;

fn key(key: &[u8]) -> Checked {
    if key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    Ok(())
}

/// A range request.
pub fn range(r: &RangeRequest) -> Checked {
    key(&r.key)?;
    let known =
        SortOrder::try_from(r.sort_order).is_ok() && SortTarget::try_from(r.sort_target).is_ok();
    if known { Ok(()) } else { Err(EtcdError::InvalidSortOption) }
}

/// A put.
pub fn put(r: &PutRequest) -> Checked {
    key(&r.key)?;
    if r.ignore_value && !r.value.is_empty() {
        return Err(EtcdError::ValueProvided);
    }
    if r.ignore_lease && r.lease != 0 {
        return Err(EtcdError::LeaseProvided);
    }
    Ok(())
}

/// A delete.
pub fn delete_range(r: &DeleteRangeRequest) -> Checked {
    key(&r.key)
}

/// A transaction with at most `max_ops` operations per branch, nested ones included.
pub fn txn(r: &TxnRequest, max_ops: usize) -> Checked {
    txn_ops(r, max_ops)?;
    overlaps(&r.success)?;
    overlaps(&r.failure)?;
    Ok(())
}

fn txn_ops(r: &TxnRequest, max_ops: usize) -> Checked {
    let most = r.compare.len().max(r.success.len()).max(r.failure.len());
    if most > max_ops {
        return Err(EtcdError::TooManyOps);
    }
    for c in &r.compare {
        key(&c.key)?;
    }
    for op in r.success.iter().chain(&r.failure) {
        match &op.request {
            Some(Request::RequestRange(r)) => range(r)?,
            Some(Request::RequestPut(r)) => put(r)?,
            Some(Request::RequestDeleteRange(r)) => delete_range(r)?,
            Some(Request::RequestTxn(t)) => txn_ops(t, max_ops - most)?,
            None => return Err(EtcdError::KeyNotFound),
        }
    }
    Ok(())
}

/// Keys that a branch puts, and ranges that it deletes: no key may be put twice, nor put and
/// deleted, by operations that can both run.
fn overlaps(ops: &[RequestOp]) -> Result<(BTreeSet<&[u8]>, Vec<KeyRange>), EtcdError> {
    let mut deletes: Vec<KeyRange> = Vec::new();
    let mut puts: BTreeSet<&[u8]> = BTreeSet::new();
    for op in ops {
        if let Some(Request::RequestDeleteRange(d)) = &op.request {
            deletes.push(KeyRange::new(&d.key, &d.range_end));
        }
    }
    let deleted = |deletes: &[KeyRange], key: &[u8]| deletes.iter().any(|d| d.contains(key));
    for op in ops {
        let Some(Request::RequestTxn(t)) = &op.request else {
            continue;
        };
        let (then_puts, then_deletes) = overlaps(&t.success)?;
        let (else_puts, else_deletes) = overlaps(&t.failure)?;
        for key in &then_puts {
            if puts.contains(key) || deleted(&deletes, key) {
                return Err(EtcdError::DuplicateKey);
            }
        }
        for key in &else_puts {
            // The two branches exclude each other.
            if puts.contains(key) || deleted(&deletes, key) {
                return Err(EtcdError::DuplicateKey);
            }
        }
        puts.extend(then_puts);
        puts.extend(else_puts);
        deletes.extend(then_deletes);
        deletes.extend(else_deletes);
    }
    for op in ops {
        if let Some(Request::RequestPut(p)) = &op.request
            && (deleted(&deletes, &p.key) || !puts.insert(&p.key))
        {
            return Err(EtcdError::DuplicateKey);
        }
    }
    Ok((puts, deletes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(r: Request) -> RequestOp {
        RequestOp { request: Some(r) }
    }

    fn put_op(k: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: k.into(), ..Default::default() }))
    }

    fn delete_op(k: &'static str, end: &'static str) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: k.into(),
            range_end: end.into(),
            ..Default::default()
        }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest { success, failure, ..Default::default() }))
    }

    fn check(success: Vec<RequestOp>) -> Checked {
        let r = TxnRequest { success, ..Default::default() };
        txn(&r, 8)
    }

    #[test]
    fn a_key_is_changed_once() {
        let duplicate = Err(EtcdError::DuplicateKey);
        assert_eq!(check(vec![put_op("a"), put_op("b")]), Ok(()));
        assert_eq!(check(vec![put_op("a"), put_op("a")]), duplicate);
        assert_eq!(check(vec![put_op("b"), delete_op("a", "c")]), duplicate);
        assert_eq!(check(vec![delete_op("a", "c"), delete_op("b", "")]), Ok(()));
        assert_eq!(check(vec![nested(vec![put_op("a")], vec![put_op("a")])]), Ok(()));
        assert_eq!(check(vec![nested(vec![put_op("a")], vec![]), put_op("a")]), duplicate);
        assert_eq!(check(vec![nested(vec![delete_op("a", "b")], vec![]), put_op("a")]), duplicate);
    }

    #[test]
    fn sizes_and_empty_keys() {
        let many = (0..9).map(|_| delete_op("a", "")).collect();
        assert_eq!(check(many), Err(EtcdError::TooManyOps));
        assert_eq!(check(vec![put_op("")]), Err(EtcdError::EmptyKey));
        assert_eq!(check(vec![RequestOp { request: None }]), Err(EtcdError::KeyNotFound));
        let bad_sort = RangeRequest { key: "a".into(), sort_order: 9, ..Default::default() };
        assert_eq!(range(&bad_sort), Err(EtcdError::InvalidSortOption));
    }
}
