//! Put, DeleteRange and Txn on the store.

use std::cmp::Ordering;
use std::io;

use bytes::Bytes;
use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd_api::pb::etcdserverpb::request_op::Request;
use etcd_api::pb::etcdserverpb::response_op::Response;
use etcd_api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};

use super::Values;
use super::history::Version;
use super::index::KeyRange;
use super::range::{Selection, key_value};
use super::store::{Revision, Store, Write};
use crate::storage::files::ValueRef;

/// Why a request was not carried out. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TxnError {
    /// The client's mistake, or the state's.
    #[error("{0}")]
    Etcd(#[from] EtcdError),
    /// A value could not be read: this member is damaged.
    #[error("a stored value cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// What a request runs with.
pub struct Context<'a> {
    /// Where stored values are read from.
    pub values: &'a dyn Values,
    /// Where a value of the request itself is stored.
    pub locate: &'a dyn Fn(&Bytes) -> ValueRef,
    /// Whether anybody waits for the response; if not, nothing is read for it.
    pub answer: bool,
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..Default::default() })
}

/// Puts one key.
pub fn put(
    store: &mut Store,
    r: &PutRequest,
    cx: &Context<'_>,
) -> Result<(PutResponse, Option<Revision>), TxnError> {
    check_put(store, r)?;
    let mut write = store.begin();
    let response = put_in(&mut write, r, cx)?;
    Ok((response, write.commit()))
}

/// Deletes a range.
pub fn delete_range(
    store: &mut Store,
    r: &DeleteRangeRequest,
    cx: &Context<'_>,
) -> Result<(DeleteRangeResponse, Option<Revision>), TxnError> {
    let mut write = store.begin();
    let response = delete_in(&mut write, r, cx)?;
    Ok((response, write.commit()))
}

/// Compares and runs one branch.
pub fn txn(
    store: &mut Store,
    r: &TxnRequest,
    cx: &Context<'_>,
) -> Result<(TxnResponse, Option<Revision>), TxnError> {
    let mut path = Vec::new();
    decide(store, r, cx, &mut path)?;
    check_ops(store, r, &mut path.iter().copied())?;
    let mut write = store.begin();
    let mut response = run(&mut write, r, cx, &mut path.iter().copied())?;
    response.header = header(write.read_revision());
    Ok((response, write.commit()))
}

/// Whether a transaction changes nothing, whatever branch is taken.
pub fn is_read_only(r: &TxnRequest) -> bool {
    r.success.iter().chain(&r.failure).all(|op| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(t)) => is_read_only(t),
        _ => false,
    })
}

/// Runs a read-only transaction.
pub fn read_txn(
    store: &Store,
    r: &TxnRequest,
    values: &dyn Values,
) -> Result<TxnResponse, TxnError> {
    let cx = Context { values, locate: &|_| ValueRef::default(), answer: true };
    let mut path = Vec::new();
    decide(store, r, &cx, &mut path)?;
    check_ops(store, r, &mut path.iter().copied())?;
    let mut response = run_read(store, r, &cx, &mut path.iter().copied())?;
    response.header = header(store.revision);
    Ok(response)
}

/// Evaluates all compares against the state before the transaction, outermost first.
fn decide(
    store: &Store,
    r: &TxnRequest,
    cx: &Context<'_>,
    path: &mut Vec<bool>,
) -> Result<(), TxnError> {
    let mut holds = true;
    for c in &r.compare {
        if !compare(store, c, cx)? {
            holds = false;
            break;
        }
    }
    path.push(holds);
    for op in branch(r, holds) {
        if let Some(Request::RequestTxn(t)) = &op.request {
            decide(store, t, cx, path)?;
        }
    }
    Ok(())
}

fn branch(r: &TxnRequest, holds: bool) -> &[RequestOp] {
    if holds { &r.success } else { &r.failure }
}

fn compare(store: &Store, c: &Compare, cx: &Context<'_>) -> Result<bool, TxnError> {
    let range = KeyRange::new(&c.key, &c.range_end);
    let mut any = false;
    for (_, history) in store.index.range(&range, None) {
        if let Some(v) = history.at(i64::MAX) {
            any = true;
            if !compare_version(c, Some(v), cx)? {
                return Ok(false);
            }
        }
    }
    Ok(any || compare_version(c, None, cx)?)
}

/// A key that is not there has zero revisions, version and lease, and no value: nothing equals
/// the value of an absent key, nor differs from it.
fn compare_version(c: &Compare, v: Option<&Version>, cx: &Context<'_>) -> Result<bool, TxnError> {
    let number = |have: i64, want: Option<i64>| have.cmp(&want.unwrap_or(0));
    let union = c.target_union.as_ref();
    let order = match c.target() {
        CompareTarget::Value => {
            let Some(v) = v else { return Ok(false) };
            let want: &[u8] = match union {
                Some(TargetUnion::Value(b)) => b,
                _ => &[],
            };
            cx.values.load(v.value)?.as_ref().cmp(want)
        }
        CompareTarget::Version => number(
            v.map_or(0, |v| v.version),
            union.and_then(|u| match u {
                TargetUnion::Version(n) => Some(*n),
                _ => None,
            }),
        ),
        CompareTarget::Create => number(
            v.map_or(0, |v| v.create),
            union.and_then(|u| match u {
                TargetUnion::CreateRevision(n) => Some(*n),
                _ => None,
            }),
        ),
        CompareTarget::Mod => number(
            v.map_or(0, |v| v.main),
            union.and_then(|u| match u {
                TargetUnion::ModRevision(n) => Some(*n),
                _ => None,
            }),
        ),
        CompareTarget::Lease => number(
            v.map_or(0, |v| v.lease),
            union.and_then(|u| match u {
                TargetUnion::Lease(n) => Some(*n),
                _ => None,
            }),
        ),
    };
    Ok(match c.result() {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::NotEqual => order != Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
    })
}

/// Everything that can refuse a transaction, before anything is changed.
fn check_ops(
    store: &Store,
    r: &TxnRequest,
    path: &mut dyn Iterator<Item = bool>,
) -> Result<(), EtcdError> {
    let holds = path.next().unwrap_or(false);
    for op in branch(r, holds) {
        match &op.request {
            Some(Request::RequestRange(r)) => store.check_revision(r.revision)?,
            Some(Request::RequestPut(r)) => check_put(store, r)?,
            Some(Request::RequestTxn(t)) => check_ops(store, t, path)?,
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

fn check_put(store: &Store, r: &PutRequest) -> Result<(), EtcdError> {
    if r.lease != 0 && !store.leases.contains_key(&r.lease) {
        return Err(EtcdError::LeaseNotFound);
    }
    if (r.ignore_value || r.ignore_lease)
        && store.index.get(&r.key).and_then(|h| h.at(i64::MAX)).is_none()
    {
        return Err(EtcdError::KeyNotFound);
    }
    Ok(())
}

fn run(
    write: &mut Write<'_>,
    r: &TxnRequest,
    cx: &Context<'_>,
    path: &mut dyn Iterator<Item = bool>,
) -> Result<TxnResponse, TxnError> {
    let succeeded = path.next().unwrap_or(false);
    let mut responses = Vec::new();
    for op in branch(r, succeeded) {
        let response = match &op.request {
            Some(Request::RequestRange(r)) if cx.answer => {
                let at = write.read_revision();
                Response::ResponseRange(range(write.store, r, at, cx)?)
            }
            Some(Request::RequestRange(_)) | None => {
                Response::ResponseRange(RangeResponse::default())
            }
            Some(Request::RequestPut(r)) => Response::ResponsePut(put_in(write, r, cx)?),
            Some(Request::RequestDeleteRange(r)) => {
                Response::ResponseDeleteRange(delete_in(write, r, cx)?)
            }
            Some(Request::RequestTxn(t)) => Response::ResponseTxn(run(write, t, cx, path)?),
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    Ok(TxnResponse { header: header(write.read_revision()), succeeded, responses })
}

fn run_read(
    store: &Store,
    r: &TxnRequest,
    cx: &Context<'_>,
    path: &mut dyn Iterator<Item = bool>,
) -> Result<TxnResponse, TxnError> {
    let succeeded = path.next().unwrap_or(false);
    let mut responses = Vec::new();
    for op in branch(r, succeeded) {
        let response = match &op.request {
            Some(Request::RequestRange(r)) => {
                Response::ResponseRange(range(store, r, store.revision, cx)?)
            }
            Some(Request::RequestTxn(t)) => Response::ResponseTxn(run_read(store, t, cx, path)?),
            _ => Response::ResponseRange(RangeResponse::default()),
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    Ok(TxnResponse { header: header(store.revision), succeeded, responses })
}

fn range(
    store: &Store,
    r: &RangeRequest,
    now: i64,
    cx: &Context<'_>,
) -> Result<RangeResponse, TxnError> {
    let at = if r.revision > 0 { r.revision } else { now };
    let keys = KeyRange::new(&r.key, &r.range_end);
    let mut selection = Selection::default();
    selection.feed(&store.index, r, &keys, at, usize::MAX);
    let mut response = selection.respond(r, cx.values)?;
    response.header = header(now);
    Ok(response)
}

fn put_in(
    write: &mut Write<'_>,
    r: &PutRequest,
    cx: &Context<'_>,
) -> Result<PutResponse, TxnError> {
    let before = write.store.index.get(&r.key).and_then(|h| h.at(i64::MAX)).copied();
    let (value, in_memory) = match before {
        Some(v) if r.ignore_value => (v.value, None),
        _ => ((cx.locate)(&r.value), Some(r.value.clone())),
    };
    let lease = match before {
        Some(v) if r.ignore_lease => v.lease,
        _ => r.lease,
    };
    let prev_kv = match before {
        Some(v) if r.prev_kv && cx.answer => Some(key_value(&r.key, &v, Some(cx.values))?),
        _ => None,
    };
    write.put(&r.key, value, in_memory, lease);
    Ok(PutResponse { header: header(write.read_revision()), prev_kv })
}

fn delete_in(
    write: &mut Write<'_>,
    r: &DeleteRangeRequest,
    cx: &Context<'_>,
) -> Result<DeleteRangeResponse, TxnError> {
    let range = KeyRange::new(&r.key, &r.range_end);
    let mut prev_kvs = Vec::new();
    if r.prev_kv && cx.answer {
        for (key, history) in write.store.index.range(&range, None) {
            if let Some(v) = history.at(i64::MAX) {
                prev_kvs.push(key_value(key, v, Some(cx.values))?);
            }
        }
    }
    let deleted = write.delete(&range);
    Ok(DeleteRangeResponse { header: header(write.read_revision()), deleted, prev_kvs })
}
