//! What etcd is to do, written down a second time and as simply as possible: a map for each revision.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use etcd_api::pb::etcdserverpb::compare::{CompareResult, TargetUnion};
use etcd_api::pb::etcdserverpb::request_op::Request as Op;
use etcd_api::pb::etcdserverpb::response_op::Response as Answer;
use etcd_api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, ResponseOp, TxnRequest, TxnResponse,
};
use etcd_api::pb::mvccpb::event::EventType;
use etcd_api::pb::mvccpb::{Event, KeyValue};

/// What a client asks.
#[derive(Debug, Clone)]
pub enum Request {
    /// Reads.
    Range(RangeRequest),
    /// Writes one key.
    Put(PutRequest),
    /// Deletes keys.
    Delete(DeleteRangeRequest),
    /// Several of these at once.
    Txn(TxnRequest),
}

/// What it is answered. Headers are left out.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// To a read.
    Range(RangeResponse),
    /// To a put.
    Put(PutResponse),
    /// To a deletion.
    Delete(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
}

/// All keys at one revision.
pub type Keys = BTreeMap<Bytes, KeyValue>;

/// A request under way.
pub struct Step<'a> {
    /// The keys at earlier revisions.
    past: &'a [Keys],
    /// The keys before and, then, after it.
    pub keys: Keys,
    /// The revision that its writes get.
    pub revision: i64,
    /// What it changed.
    pub events: Vec<Event>,
}

impl<'a> Step<'a> {
    /// On these keys, for this revision.
    pub fn new(past: &'a [Keys], keys: Keys, revision: i64) -> Self {
        Self { past, keys, revision, events: Vec::new() }
    }

    fn range(&self, r: &RangeRequest) -> RangeResponse {
        let old = usize::try_from(r.revision).ok().filter(|revision| *revision > 0);
        range(old.and_then(|revision| self.past.get(revision)).unwrap_or(&self.keys), r)
    }

    /// Carries out a request.
    pub fn run(&mut self, request: &Request) -> Response {
        match request {
            Request::Range(r) => Response::Range(self.range(r)),
            Request::Put(r) => Response::Put(self.put(r)),
            Request::Delete(r) => Response::Delete(self.delete(r)),
            Request::Txn(r) => Response::Txn(self.txn(r)),
        }
    }

    fn put(&mut self, r: &PutRequest) -> PutResponse {
        let before = self.keys.get(&r.key).cloned();
        let kv = KeyValue {
            key: r.key.clone(),
            value: r.value.clone(),
            lease: r.lease,
            mod_revision: self.revision,
            create_revision: before.as_ref().map_or(self.revision, |kv| kv.create_revision),
            version: before.as_ref().map_or(1, |kv| kv.version + 1),
        };
        self.keys.insert(r.key.clone(), kv.clone());
        self.events.push(Event {
            r#type: EventType::Put.into(),
            kv: Some(kv),
            prev_kv: before.clone(),
        });
        PutResponse { prev_kv: before.filter(|_| r.prev_kv), ..Default::default() }
    }

    fn delete(&mut self, r: &DeleteRangeRequest) -> DeleteRangeResponse {
        let found = select(&self.keys, &r.key, &r.range_end);
        for kv in &found {
            self.keys.remove(&kv.key);
            self.events.push(deletion(kv, self.revision));
        }
        let deleted = found.len() as i64;
        let prev_kvs = if r.prev_kv { found } else { Vec::new() };
        DeleteRangeResponse { deleted, prev_kvs, ..Default::default() }
    }

    fn txn(&mut self, r: &TxnRequest) -> TxnResponse {
        let succeeded = r.compare.iter().all(|c| holds(&self.keys, c));
        let branch = if succeeded { &r.success } else { &r.failure };
        let responses = branch.iter().map(|op| ResponseOp {
            response: op.request.as_ref().map(|op| match op {
                Op::RequestRange(r) => Answer::ResponseRange(self.range(r)),
                Op::RequestPut(r) => Answer::ResponsePut(self.put(r)),
                Op::RequestDeleteRange(r) => Answer::ResponseDeleteRange(self.delete(r)),
                Op::RequestTxn(r) => Answer::ResponseTxn(self.txn(r)),
            }),
        });
        let responses = responses.collect();
        TxnResponse { succeeded, responses, ..Default::default() }
    }
}

/// The event of a key's end.
pub fn deletion(before: &KeyValue, revision: i64) -> Event {
    let kv = KeyValue { key: before.key.clone(), mod_revision: revision, ..Default::default() };
    Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: Some(before.clone()) }
}

/// Whether a key lies in `[key, end)`, as etcd writes ranges.
pub fn contains(key: &[u8], end: &[u8], candidate: &[u8]) -> bool {
    match end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

fn select(keys: &Keys, key: &[u8], end: &[u8]) -> Vec<KeyValue> {
    let from = (Bound::Included(key), Bound::Unbounded);
    let behind = keys.range::<[u8], _>(from);
    behind.filter(|(k, _)| contains(key, end, k)).map(|(_, kv)| kv.clone()).collect()
}

fn range(keys: &Keys, r: &RangeRequest) -> RangeResponse {
    let mut kvs = select(keys, &r.key, &r.range_end);
    let count = kvs.len() as i64;
    let mut more = false;
    if r.count_only {
        kvs.clear();
    } else if r.limit > 0 && count > r.limit {
        kvs.truncate(usize::try_from(r.limit).expect("positive"));
        more = true;
    }
    if r.keys_only {
        for kv in &mut kvs {
            kv.value.clear();
        }
    }
    RangeResponse { kvs, count, more, ..Default::default() }
}

fn holds(keys: &Keys, c: &Compare) -> bool {
    let kv = keys.get(&c.key).cloned().unwrap_or_default();
    let order = match &c.target_union {
        Some(TargetUnion::Version(n)) => kv.version.cmp(n),
        Some(TargetUnion::CreateRevision(n)) => kv.create_revision.cmp(n),
        Some(TargetUnion::ModRevision(n)) => kv.mod_revision.cmp(n),
        Some(TargetUnion::Lease(n)) => kv.lease.cmp(n),
        Some(TargetUnion::Value(v)) => {
            if !keys.contains_key(&c.key) {
                return false;
            }
            kv.value.cmp(v)
        }
        None => return false,
    };
    match c.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

impl Response {
    /// Takes the headers off; gives the revision that the outermost one shows.
    pub fn take_header(&mut self) -> i64 {
        let header = match self {
            Response::Range(r) => r.header.take(),
            Response::Put(r) => r.header.take(),
            Response::Delete(r) => r.header.take(),
            Response::Txn(r) => {
                bare(r);
                r.header.take()
            }
        };
        header.map_or(0, |header| header.revision)
    }

    /// Whether something was changed.
    pub fn wrote(&self) -> bool {
        match self {
            Response::Range(_) => false,
            Response::Put(_) => true,
            Response::Delete(r) => r.deleted > 0,
            Response::Txn(r) => txn_wrote(r),
        }
    }
}

fn bare(r: &mut TxnResponse) {
    for op in &mut r.responses {
        match &mut op.response {
            Some(Answer::ResponseRange(r)) => r.header = None,
            Some(Answer::ResponsePut(r)) => r.header = None,
            Some(Answer::ResponseDeleteRange(r)) => r.header = None,
            Some(Answer::ResponseTxn(r)) => {
                r.header = None;
                bare(r);
            }
            None => {}
        }
    }
}

fn txn_wrote(r: &TxnResponse) -> bool {
    r.responses.iter().any(|op| match &op.response {
        Some(Answer::ResponsePut(_)) => true,
        Some(Answer::ResponseDeleteRange(r)) => r.deleted > 0,
        Some(Answer::ResponseTxn(r)) => txn_wrote(r),
        _ => false,
    })
}
