//! The store and its transactions, on values in memory.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;

use bytes::Bytes;
use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd_api::pb::etcdserverpb::request_op::Request;
use etcd_api::pb::etcdserverpb::response_op::Response;
use etcd_api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    TxnResponse,
};

use super::Values;
use super::index::KeyRange;
use super::range::Selection;
use super::store::{Revision, Store};
use super::txn::{self, Context, TxnError};
use crate::storage::files::ValueRef;

#[derive(Default)]
struct Memory(Mutex<HashMap<u32, Bytes>>);

impl Memory {
    fn keep(&self, value: &Bytes) -> ValueRef {
        if value.is_empty() {
            return ValueRef::default();
        }
        let mut all = self.0.lock().unwrap();
        let offset = all.len() as u32;
        all.insert(offset, value.clone());
        ValueRef { segment: 1, offset, len: value.len() as u32, crc: 0 }
    }
}

impl Values for Memory {
    fn load(&self, at: ValueRef) -> io::Result<Bytes> {
        if at.segment == 0 {
            return Ok(Bytes::new());
        }
        Ok(self.0.lock().unwrap()[&at.offset].clone())
    }
}

#[derive(Default)]
struct Bench {
    store: Store,
    memory: Memory,
}

impl Bench {
    fn txn(&mut self, r: TxnRequest) -> Result<(TxnResponse, Option<Revision>), TxnError> {
        let memory = &self.memory;
        let cx = Context { values: memory, locate: &|v| memory.keep(v), answer: true };
        let out = txn::txn(&mut self.store, &r, &cx);
        self.store.validate();
        out
    }

    fn put(&mut self, key: &str, value: &str) -> i64 {
        self.put_lease(key, value, 0).unwrap()
    }

    fn put_lease(&mut self, key: &str, value: &str, lease: i64) -> Result<i64, TxnError> {
        let r = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            lease,
            ..Default::default()
        };
        Ok(self.txn(ops(vec![Request::RequestPut(r)]))?.1.unwrap().main)
    }

    fn delete(&mut self, key: &str, end: &str) -> i64 {
        let r = DeleteRangeRequest {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            prev_kv: true,
        };
        let (response, _) = self.txn(ops(vec![Request::RequestDeleteRange(r)])).unwrap();
        match response.responses[0].response.as_ref().unwrap() {
            Response::ResponseDeleteRange(d) => d.deleted,
            other => panic!("{other:?}"),
        }
    }

    fn range(&self, r: &RangeRequest) -> RangeResponse {
        let at = if r.revision == 0 { self.store.revision } else { r.revision };
        let keys = KeyRange::new(&r.key, &r.range_end);
        let mut selection = Selection::default();
        // One key at a time, to exercise resumption.
        while selection.feed(&self.store.index, r, &keys, at, 1) {}
        selection.respond(r, &self.memory).unwrap()
    }

    fn get(&self, key: &str, revision: i64) -> Option<String> {
        let r = RangeRequest { key: key.to_owned().into(), revision, ..Default::default() };
        let response = self.range(&r);
        response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }
}

fn ops(success: Vec<Request>) -> TxnRequest {
    TxnRequest {
        success: success.into_iter().map(|r| RequestOp { request: Some(r) }).collect(),
        ..Default::default()
    }
}

fn all() -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    }
}

fn keys(r: &RangeResponse) -> Vec<&str> {
    r.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}

#[test]
fn every_transaction_takes_one_revision_and_history_can_be_read() {
    let mut b = Bench::default();
    assert_eq!(b.put("a", "1"), 2);
    assert_eq!(b.put("a", "2"), 3);
    assert_eq!(b.delete("a", ""), 1);
    assert_eq!(b.store.revision, 4);
    assert_eq!(b.put("a", "3"), 5);
    assert_eq!(b.get("a", 1), None);
    assert_eq!(b.get("a", 2).as_deref(), Some("1"));
    assert_eq!(b.get("a", 3).as_deref(), Some("2"));
    assert_eq!(b.get("a", 4), None);
    assert_eq!(b.get("a", 0).as_deref(), Some("3"));
    let kv = &b.range(&all()).kvs[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
    assert_eq!(b.delete("nothing", ""), 0);
    assert_eq!(b.store.revision, 5, "an empty delete takes no revision");
}

#[test]
fn kubernetes_create_and_update_pattern() {
    let mut b = Bench::default();
    let create = |value: &str, mod_revision| TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: "k".into(),
            target_union: Some(TargetUnion::ModRevision(mod_revision)),
            ..Default::default()
        }],
        success: vec![RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: "k".into(),
                value: value.to_owned().into(),
                ..Default::default()
            })),
        }],
        failure: vec![RequestOp {
            request: Some(Request::RequestRange(RangeRequest {
                key: "k".into(),
                ..Default::default()
            })),
        }],
    };
    assert!(b.txn(create("1", 0)).unwrap().0.succeeded);
    let (again, changed) = b.txn(create("2", 0)).unwrap();
    assert!(!again.succeeded && changed.is_none());
    let Some(Response::ResponseRange(r)) = &again.responses[0].response else {
        panic!("{again:?}");
    };
    assert_eq!(&r.kvs[0].value[..], b"1");
    let (ok, _) = b.txn(create("2", r.kvs[0].mod_revision)).unwrap();
    assert!(ok.succeeded);
    assert_eq!(ok.header.unwrap().revision, 3);
}

#[test]
fn a_transaction_sees_its_own_changes_and_numbers_them() {
    let mut b = Bench::default();
    let put = |k: &str| {
        Request::RequestPut(PutRequest {
            key: k.to_owned().into(),
            value: k.to_owned().into(),
            ..Default::default()
        })
    };
    let (response, revision) = b
        .txn(ops(vec![
            put("a"),
            Request::RequestRange(all()),
            Request::RequestTxn(ops(vec![put("b"), put("c")])),
            Request::RequestRange(all()),
        ]))
        .unwrap();
    let count = |i: usize| match &response.responses[i].response {
        Some(Response::ResponseRange(r)) => r.kvs.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((count(1), count(3)), (1, 3));
    let revision = revision.unwrap();
    let subs: Vec<u32> = revision.events.iter().map(|e| e.version.sub).collect();
    assert_eq!((revision.main, subs), (2, vec![0, 1, 2]));
}

#[test]
fn a_refused_transaction_changes_nothing() {
    let mut b = Bench::default();
    b.put("a", "1");
    let put =
        |lease| Request::RequestPut(PutRequest { key: "b".into(), lease, ..Default::default() });
    let e = b.txn(ops(vec![put(0), put(99)])).unwrap_err();
    assert!(matches!(e, TxnError::Etcd(EtcdError::LeaseNotFound)));
    let ignore = Request::RequestPut(PutRequest {
        key: "absent".into(),
        ignore_value: true,
        ..Default::default()
    });
    let e = b.txn(ops(vec![put(0), ignore])).unwrap_err();
    assert!(matches!(e, TxnError::Etcd(EtcdError::KeyNotFound)));
    let future = RangeRequest { revision: 9, ..all() };
    let e = b.txn(ops(vec![put(0), Request::RequestRange(future)])).unwrap_err();
    assert!(matches!(e, TxnError::Etcd(EtcdError::FutureRevision)));
    assert_eq!((b.store.revision, b.get("b", 0)), (2, None));
}

#[test]
fn ranges_sort_limit_filter_and_count() {
    let mut b = Bench::default();
    for (k, v) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "3")] {
        b.put(k, v);
    }
    let r = b.range(&RangeRequest { limit: 2, ..all() });
    assert_eq!((keys(&r), r.more, r.count), (vec!["a", "b"], true, 3));
    let r = b.range(&RangeRequest { count_only: true, ..all() });
    assert_eq!((r.kvs.len(), r.more, r.count), (0, false, 3));
    let by = |target: SortTarget, order: SortOrder, limit| {
        let r = b.range(&RangeRequest {
            sort_target: target.into(),
            sort_order: order.into(),
            limit,
            ..all()
        });
        keys(&r).join("")
    };
    assert_eq!(by(SortTarget::Key, SortOrder::Descend, 2), "cb");
    assert_eq!(by(SortTarget::Value, SortOrder::Ascend, 0), "bca");
    assert_eq!(by(SortTarget::Value, SortOrder::None, 0), "bca");
    assert_eq!(by(SortTarget::Mod, SortOrder::Descend, 0), "acb");
    assert_eq!(by(SortTarget::Create, SortOrder::Ascend, 1), "a");
    assert_eq!(by(SortTarget::Version, SortOrder::Descend, 1), "a");
    let r = b.range(&RangeRequest {
        min_mod_revision: 4,
        max_mod_revision: 4,
        keys_only: true,
        limit: 1,
        ..all()
    });
    assert_eq!((keys(&r), r.more), (vec!["c"], false));
    assert!(r.kvs[0].value.is_empty());
    let r = b.range(&RangeRequest { key: "b".into(), range_end: "a".into(), ..Default::default() });
    assert_eq!(r.count, 0, "a range that ends before it starts is empty");
}

#[test]
fn compares_of_every_target_and_over_ranges() {
    let mut b = Bench::default();
    b.store.grant(7, 60).unwrap();
    b.put_lease("a1", "x", 7).unwrap();
    b.put("a2", "y");
    let mut holds = |key: &str, end: &str, result: CompareResult, union: TargetUnion| {
        let target = match union {
            TargetUnion::Version(_) => CompareTarget::Version,
            TargetUnion::CreateRevision(_) => CompareTarget::Create,
            TargetUnion::ModRevision(_) => CompareTarget::Mod,
            TargetUnion::Value(_) => CompareTarget::Value,
            TargetUnion::Lease(_) => CompareTarget::Lease,
        };
        let c = Compare {
            result: result.into(),
            target: target.into(),
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            target_union: Some(union),
        };
        let r = TxnRequest { compare: vec![c], ..Default::default() };
        b.txn(r).unwrap().0.succeeded
    };
    use CompareResult::{Equal, Greater, Less, NotEqual};
    assert!(holds("a1", "", Equal, TargetUnion::Version(1)));
    assert!(holds("a1", "", Less, TargetUnion::CreateRevision(3)));
    assert!(holds("a2", "", Greater, TargetUnion::ModRevision(2)));
    assert!(holds("a1", "", NotEqual, TargetUnion::Value("z".into())));
    assert!(holds("a1", "", Equal, TargetUnion::Lease(7)));
    assert!(holds("none", "", Equal, TargetUnion::Version(0)));
    assert!(!holds("none", "", NotEqual, TargetUnion::Value("z".into())));
    assert!(holds("a", "b", Less, TargetUnion::ModRevision(4)));
    assert!(!holds("a", "b", Equal, TargetUnion::Lease(7)));
    assert!(holds("b", "c", Equal, TargetUnion::ModRevision(0)));
}

#[test]
fn revoking_a_lease_deletes_its_keys_in_one_revision() {
    let mut b = Bench::default();
    b.store.grant(7, 60).unwrap();
    b.store.grant(8, 60).unwrap();
    assert_eq!(b.store.grant(7, 60), Err(EtcdError::LeaseExists));
    b.put_lease("a", "1", 7).unwrap();
    b.put_lease("b", "1", 7).unwrap();
    b.put_lease("c", "1", 7).unwrap();
    b.put_lease("c", "2", 8).unwrap();
    b.delete("b", "");
    let revision = b.store.revoke(7).unwrap().unwrap();
    assert_eq!((revision.main, revision.events.len()), (7, 1));
    b.store.validate();
    assert_eq!(b.get("a", 0), None);
    assert_eq!(b.get("c", 0).as_deref(), Some("2"));
    assert!(b.store.revoke(7).is_err());
}

#[test]
fn compaction_keeps_exactly_what_later_reads_can_see() {
    let mut b = Bench::default();
    b.put("a", "1");
    b.put("a", "2");
    b.put("gone", "x");
    b.delete("gone", "");
    b.put("a", "3");
    let before: Vec<_> = (5..=6).map(|rev| (b.get("a", rev), b.get("gone", rev))).collect();
    b.store.compact(5).unwrap();
    assert_eq!(b.store.compact(5), Err(EtcdError::Compacted));
    assert_eq!(b.store.compact(7), Err(EtcdError::FutureRevision));
    while b.store.sweep(1) {}
    b.store.validate();
    let after: Vec<_> = (5..=6).map(|rev| (b.get("a", rev), b.get("gone", rev))).collect();
    assert_eq!(before, after);
    assert_eq!(b.store.index.len(), 2, "a watch from revision 5 must still see the delete");
    assert_eq!(b.store.check_revision(4), Err(EtcdError::Compacted));
    assert_eq!(b.store.check_revision(5), Ok(()));
    b.store.compact(6).unwrap();
    while b.store.sweep(100) {}
    b.store.validate();
    assert_eq!(b.store.index.len(), 1, "a deleted key leaves nothing behind");
    assert_eq!(b.store.index.get(b"a").unwrap().versions().len(), 1);
    assert!(b.store.garbage.is_empty());
}

#[test]
fn key_ranges_overlap_when_they_share_a_key() {
    let one = |k: &str| KeyRange::new(k.as_bytes(), b"");
    let half = |a: &str, b: &str| KeyRange::new(a.as_bytes(), b.as_bytes());
    assert!(one("a").overlaps(&one("a")));
    assert!(!one("a").overlaps(&one("b")));
    assert!(half("a", "c").overlaps(&one("b")));
    assert!(!half("a", "c").overlaps(&one("c")));
    assert!(!half("a", "c").overlaps(&half("c", "d")));
    assert!(half("a", "\0").overlaps(&one("z")));
    assert!(!half("b", "\0").overlaps(&one("a")));
    assert!(!half("c", "a").overlaps(&half("a", "z")));
}
