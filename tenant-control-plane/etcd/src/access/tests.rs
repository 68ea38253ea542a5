use etcd_api::error::EtcdError;
use etcd_api::pb::authpb::permission::Type;
use etcd_api::pb::authpb::{Permission, UserAddOptions};
use etcd_api::pb::etcdserverpb::request_op::Request;
use etcd_api::pb::etcdserverpb::*;

use super::check::Check;
use super::grants::Access;
use super::store::Store;
use crate::mvcc::store as mvcc;
use crate::pb;
use crate::pb::auth_change::Change;
use crate::pb::proposal::Op;

fn user(name: &str) -> Change {
    Change::UserAdd(AuthUserAddRequest {
        name: name.into(),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    })
}

fn role(name: &str) -> Change {
    Change::RoleAdd(AuthRoleAddRequest { name: name.into() })
}

fn grant_role(user: &str, role: &str) -> Change {
    Change::UserGrantRole(AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
}

fn grant(role: &str, kind: Type, key: &'static str, end: &'static str) -> Change {
    let perm = Permission {
        perm_type: kind.into(),
        key: key.into(),
        range_end: bytes::Bytes::from_static(end.as_bytes()),
    };
    Change::RoleGrantPermission(AuthRoleGrantPermissionRequest {
        name: role.into(),
        perm: Some(perm),
    })
}

fn store(changes: impl IntoIterator<Item = Change>) -> Store {
    let mut store = Store::default();
    for change in changes {
        store.change(change).unwrap();
    }
    store
}

/// A guarded store with root, and `ada` who has the role `r`.
fn guarded(grants: impl IntoIterator<Item = Change>) -> Store {
    let mut all = vec![user("root"), grant_role("root", "root"), user("ada"), role("r")];
    all.push(grant_role("ada", "r"));
    all.extend(grants);
    all.push(Change::Enable(AuthEnableRequest {}));
    store(all)
}

fn caller(store: &Store, user: &str) -> pb::Caller {
    pb::Caller { user: user.into(), revision: store.revision, internal: false }
}

fn may(store: &Store, access: Access, key: &str, end: &str) -> bool {
    store.may(Some(&caller(store, "ada")), access, key.as_bytes(), end.as_bytes()).is_ok()
}

#[test]
fn ranges_that_touch_are_one() {
    let s = guarded([
        grant("r", Type::Read, "a", "c"),
        grant("r", Type::Readwrite, "c", "e"),
        grant("r", Type::Write, "x", "\0"),
        grant("r", Type::Read, "one", ""),
    ]);
    for (access, key, end, expected) in [
        (Access::Read, "a", "e", true),
        (Access::Read, "a", "f", false),
        (Access::Read, "b", "", true),
        (Access::Read, "e", "", false),
        (Access::Read, "one", "", true),
        (Access::Read, "one", "onf", false),
        (Access::Read, "one0", "", false),
        (Access::Read, "x", "", false),
        (Access::Write, "a", "", false),
        (Access::Write, "c", "d", true),
        (Access::Write, "x", "\0", true),
        (Access::Write, "zz", "", true),
        (Access::Write, "w", "\0", false),
    ] {
        assert_eq!(may(&s, access, key, end), expected, "{access:?} {key:?} {end:?}");
    }
}

#[test]
fn permissions_can_be_changed_and_taken_away() {
    let mut s = guarded([grant("r", Type::Read, "k", ""), grant("r", Type::Write, "k", "")]);
    assert!(may(&s, Access::Write, "k", "") && !may(&s, Access::Read, "k", ""), "the last one");
    let revoke = Change::RoleRevokePermission(AuthRoleRevokePermissionRequest {
        role: "r".into(),
        key: "k".into(),
        ..Default::default()
    });
    let revision = s.revision;
    s.change(revoke.clone()).unwrap();
    assert_eq!(s.revision, revision + 1);
    assert!(!may(&s, Access::Write, "k", ""));
    assert_eq!(s.change(revoke), Err(EtcdError::PermissionNotGranted));
    let backwards = grant("r", Type::Read, "b", "a");
    assert_eq!(s.change(backwards), Err(EtcdError::InvalidAuthMgmt));
    assert_eq!(s.revision, revision + 1, "an error changes nothing");
    s.change(Change::RoleDelete(AuthRoleDeleteRequest { role: "r".into() })).unwrap();
    assert!(s.users["ada"].roles.is_empty());
}

#[test]
fn the_way_in_cannot_be_locked() {
    let mut s = Store::default();
    assert_eq!(s.change(Change::Enable(AuthEnableRequest {})), Err(EtcdError::RootUserNotExist));
    s.change(user("root")).unwrap();
    assert_eq!(s.change(Change::Enable(AuthEnableRequest {})), Err(EtcdError::RootRoleNotExist));
    let mut s = guarded([]);
    for change in [
        Change::UserDelete(AuthUserDeleteRequest { name: "root".into() }),
        Change::UserRevokeRole(AuthUserRevokeRoleRequest {
            name: "root".into(),
            role: "root".into(),
        }),
        Change::RoleDelete(AuthRoleDeleteRequest { role: "root".into() }),
    ] {
        assert_eq!(s.change(change), Err(EtcdError::InvalidAuthMgmt));
    }
}

#[test]
fn who_is_unknown_or_recognized_before_a_change_is_refused() {
    let mut s = guarded([grant("r", Type::Readwrite, "k", "")]);
    let ask = |s: &Store, caller: Option<&pb::Caller>| s.may(caller, Access::Read, b"k", b"");
    assert_eq!(ask(&s, None), Err(EtcdError::UserEmpty));
    assert_eq!(ask(&s, Some(&pb::Caller::default())), Err(EtcdError::UserEmpty));
    assert_eq!(ask(&s, Some(&caller(&s, "eve"))), Err(EtcdError::PermissionDenied));
    let ada = caller(&s, "ada");
    assert_eq!(ask(&s, Some(&ada)), Ok(()));
    assert_eq!(s.may_administer(Some(&ada)), Err(EtcdError::PermissionDenied));
    assert_eq!(s.may_administer(Some(&caller(&s, "root"))), Ok(()));
    s.change(role("another")).unwrap();
    assert_eq!(ask(&s, Some(&ada)), Err(EtcdError::AuthOldRevision));
    assert_eq!(s.is_still(Some(&ada)), Err(EtcdError::AuthOldRevision));
}

#[test]
fn what_is_stored_comes_back() {
    let s = guarded([grant("r", Type::Read, "k", "")]);
    let back = Store::load(Some(&s.save()));
    assert_eq!(back.save(), s.save());
    assert!(may(&back, Access::Read, "k", "") && !may(&back, Access::Write, "k", ""));
    assert_eq!(Store::load(None).revision, 1);
}

#[test]
fn a_transaction_needs_everything_that_any_branch_does() {
    let s = guarded([grant("r", Type::Readwrite, "a", "b"), grant("r", Type::Write, "w", "")]);
    let ada = caller(&s, "ada");
    let leases = mvcc::Store::default();
    let check = Check { access: &s, store: &leases, caller: Some(&ada) };
    let put = |key: &'static str, prev_kv| RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: key.into(),
            prev_kv,
            ..Default::default()
        })),
    };
    let txn = |success: Vec<RequestOp>, failure: Vec<RequestOp>| {
        check.op(&Op::Txn(TxnRequest { success, failure, ..Default::default() }))
    };
    assert_eq!(txn(vec![put("a", true)], vec![put("w", false)]), Ok(()));
    assert_eq!(txn(vec![put("a", true)], vec![put("z", false)]), Err(EtcdError::PermissionDenied));
    assert_eq!(txn(vec![put("w", true)], vec![]), Err(EtcdError::PermissionDenied), "prev_kv");
    let nested = RequestOp {
        request: Some(Request::RequestTxn(TxnRequest {
            compare: vec![Compare { key: "z".into(), ..Default::default() }],
            ..Default::default()
        })),
    };
    assert_eq!(txn(vec![nested], vec![]), Err(EtcdError::PermissionDenied), "a nested compare");
}

#[test]
fn who_could_not_write_a_leases_keys_may_not_end_it_or_bind_to_it() {
    let s = guarded([grant("r", Type::Readwrite, "mine", "")]);
    let mut store = mvcc::Store::default();
    store.grant(1, 10).unwrap();
    store.grant(2, 10).unwrap();
    let mut write = store.begin();
    write.put(b"mine", Default::default(), None, 1);
    write.put(b"theirs", Default::default(), None, 2);
    write.commit();
    let ada = caller(&s, "ada");
    let root = caller(&s, "root");
    let of = |caller| Check { access: &s, store: &store, caller };
    let put = |lease| Op::Put(PutRequest { key: "mine".into(), lease, ..Default::default() });
    assert_eq!(of(Some(&ada)).op(&Op::LeaseRevoke(1)), Ok(()));
    assert_eq!(of(Some(&ada)).op(&Op::LeaseRevoke(2)), Err(EtcdError::PermissionDenied));
    assert_eq!(of(Some(&ada)).op(&put(1)), Ok(()));
    assert_eq!(of(Some(&ada)).op(&put(2)), Err(EtcdError::PermissionDenied));
    assert_eq!(of(Some(&root)).op(&put(2)), Ok(()));
    let internal = pb::Caller { internal: true, ..Default::default() };
    assert_eq!(of(Some(&internal)).op(&Op::LeaseRevoke(2)), Ok(()));
}
