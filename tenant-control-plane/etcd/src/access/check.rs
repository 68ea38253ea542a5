//! Whether a proposal is allowed, when it is applied.

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::request_op::Request;
use etcd_api::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

use super::grants::Access;
use super::store::Store;
use crate::mvcc::store as mvcc;
use crate::pb;
use crate::pb::proposal::Op;

type Allowed = Result<(), EtcdError>;

/// Somebody who asks, and the state that decides.
pub struct Check<'a> {
    /// Users and roles.
    pub access: &'a Store,
    /// Leases and their keys.
    pub store: &'a mvcc::Store,
    /// Who asks.
    pub caller: Option<&'a pb::Caller>,
}

impl Check<'_> {
    /// Whether this may be done.
    pub fn op(&self, op: &Op) -> Allowed {
        match op {
            _ if !self.access.enabled => Ok(()),
            Op::Put(r) => self.put(r),
            Op::DeleteRange(r) => self.delete(r),
            Op::Txn(r) => self.txn(r),
            Op::LeaseGrant(_) => self.access.must_be_named(self.caller),
            Op::LeaseRevoke(id) => self.lease(*id, Access::Write),
            Op::Auth(_) | Op::Compact(_) => self.access.may_administer(self.caller),
            // Decided where they come in, or asked by members only.
            Op::Alarm(_)
            | Op::Publish(_)
            | Op::ForgetMember(_)
            | Op::BeginDigest(_)
            | Op::LeaseTimes(_)
            | Op::LeaseExpired(_)
            | Op::Login(_) => Ok(()),
        }
    }

    /// Whether all of a transaction may be done, whatever branch is taken.
    pub fn txn(&self, r: &TxnRequest) -> Allowed {
        for compare in &r.compare {
            self.read(&compare.key, &compare.range_end)?;
        }
        for op in r.success.iter().chain(&r.failure) {
            self.txn_op(op)?;
        }
        Ok(())
    }

    fn txn_op(&self, op: &RequestOp) -> Allowed {
        match &op.request {
            Some(Request::RequestRange(r)) => self.read(&r.key, &r.range_end),
            Some(Request::RequestPut(r)) => self.put(r),
            Some(Request::RequestDeleteRange(r)) => self.delete(r),
            Some(Request::RequestTxn(r)) => self.txn(r),
            None => Ok(()),
        }
    }

    /// Whether keys may be read.
    pub fn read(&self, key: &[u8], range_end: &[u8]) -> Allowed {
        self.access.may(self.caller, Access::Read, key, range_end)
    }

    fn put(&self, r: &PutRequest) -> Allowed {
        self.access.may(self.caller, Access::Write, &r.key, &[])?;
        // Who could not revoke a lease may not bind more keys to it.
        self.lease(r.lease, Access::Write)?;
        match r.prev_kv {
            true => self.read(&r.key, &[]),
            false => Ok(()),
        }
    }

    fn delete(&self, r: &DeleteRangeRequest) -> Allowed {
        self.access.may(self.caller, Access::Write, &r.key, &r.range_end)?;
        match r.prev_kv {
            true => self.read(&r.key, &r.range_end),
            false => Ok(()),
        }
    }

    /// Whether all keys of a lease may be read or written.
    pub fn lease(&self, id: i64, access: Access) -> Allowed {
        let Some(lease) = self.store.leases.get(&id) else { return Ok(()) };
        self.access.must_be_named(self.caller)?;
        if self.access.may_administer(self.caller).is_ok() {
            return Ok(());
        }
        lease.keys.iter().try_for_each(|key| self.access.may(self.caller, access, key, &[]))
    }
}
