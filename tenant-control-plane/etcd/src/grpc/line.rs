//! Lines in which clients wait for their turn: what locks and elections are made of.
//!
//! Whoever joins a line puts a key below the line's name, bound to a lease. The key that was
//! created first is the one whose turn it is. When it is deleted, or its lease ends, the next one
//! follows. The keys are those of etcd's client library (`clientv3/concurrency`), so that clients
//! that stand in line by themselves and those that let the server do it wait in one line.

use std::sync::Arc;

use bytes::Bytes;
use etcd_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd_api::pb::etcdserverpb::request_op::Request;
use etcd_api::pb::etcdserverpb::response_op::Response;
use etcd_api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    TxnResponse,
};
use etcd_api::pb::mvccpb::KeyValue;
use tonic::Status;

use super::caller::Credentials;
use super::kv::KvService;
use super::lease;
use crate::mvcc::index::KeyRange;
use crate::node::Node;
use crate::pb::Caller;
use crate::pb::proposal::Op;
use crate::watch::hub::Queue;

/// Time to live of a lease that the server makes for a client that brought none, seconds.
const TTL: i64 = 60;

/// A member, and whom it serves.
#[derive(Clone)]
pub struct Desk {
    /// The member.
    pub node: Arc<Node>,
    /// Who asks. Looked at for each step: roles may change while somebody waits.
    pub credentials: Credentials,
}

/// A client's place in a line.
pub struct Place {
    desk: Desk,
    prefix: Vec<u8>,
    /// Its key.
    pub key: Bytes,
    /// Create revision of the key: who has the lowest is first.
    pub revision: i64,
    /// What the key is bound to.
    pub lease: i64,
    /// Whether the key is given up with this.
    leaves: bool,
}

impl Place {
    /// Joins the line, or finds the place that this lease has in it already. The second of the
    /// pair is what the key held before, if it was there.
    pub async fn join(
        desk: &Desk,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<(Self, Option<Bytes>), Status> {
        let lease = match lease {
            0 => lease::grant(&desk.node, 0, TTL, desk.caller().await?).await?.0,
            id => id,
        };
        let prefix = below(name);
        let sign = if lease < 0 { "-" } else { "" };
        let id = format!("{sign}{:x}", lease.unsigned_abs());
        let key = Bytes::from([&prefix[..], id.as_bytes()].concat());
        let put = PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let get = RangeRequest { key: key.clone(), ..Default::default() };
        let get = Some(Request::RequestRange(get));
        let answer = desk.if_created(key.clone(), 0, Request::RequestPut(put), get).await?;
        let header = answer.header.unwrap_or_default().revision;
        let there = match answer.responses.into_iter().next().and_then(|op| op.response) {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        };
        let revision = there.as_ref().map_or(header, |kv| kv.create_revision);
        let desk = desk.clone();
        let place = Self { desk, prefix, key, revision, lease, leaves: true };
        Ok((place, there.map(|kv| kv.value)))
    }

    /// Waits for the turn; keeping the lease alive meanwhile is the client's affair. Whoever stops
    /// waiting before leaves the line.
    pub async fn turn(mut self) -> Result<Self, Status> {
        self.wait_for_others().await?;
        let own = RangeRequest { key: self.key.clone(), ..Default::default() };
        let own = self.desk.range(own).await?.kvs;
        if own.first().is_none_or(|kv| kv.create_revision != self.revision) {
            return Err(Status::unknown("mutex: session is expired"));
        }
        self.leaves = false;
        Ok(self)
    }

    async fn wait_for_others(&self) -> Result<(), Status> {
        loop {
            let mut others = first_created(&self.prefix);
            others.sort_order = SortOrder::Descend as i32;
            others.max_create_revision = self.revision - 1;
            match self.desk.range(others).await?.kvs.first() {
                None => return Ok(()),
                Some(before) => gone(&self.desk.node, &before.key, self.revision).await,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.leaves {
            return;
        }
        let (desk, key, revision) = (self.desk.clone(), self.key.clone(), self.revision);
        // There may be no runtime any more; then the lease ends the place.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            // In the cluster's own name: who stood in line may have lost its roles meanwhile.
            let op = Op::Txn(deletion(key, revision));
            if let Err(status) = desk.node.propose(op).await {
                tracing::debug!(%status, "leaving a line failed; the lease will end it");
            }
        });
    }
}

impl Desk {
    /// Deletes a key if it is still the one that was created at a revision.
    pub async fn leave(&self, key: Bytes, created: i64) -> Result<TxnResponse, Status> {
        self.kv().run_txn(deletion(key, created), self.caller().await?).await
    }

    /// Does one thing if a key was created at a revision (0: is not there), else another.
    pub async fn if_created(
        &self,
        key: Bytes,
        revision: i64,
        then: Request,
        otherwise: Option<Request>,
    ) -> Result<TxnResponse, Status> {
        let txn = if_created(key, revision, then, otherwise);
        self.kv().run_txn(txn, self.caller().await?).await
    }

    /// The key whose turn it is, and the revision at which it was looked for.
    pub async fn first(&self, name: &[u8]) -> Result<(Option<KeyValue>, i64), Status> {
        let answer = self.range(first_created(&below(name))).await?;
        let revision = answer.header.unwrap_or_default().revision;
        Ok((answer.kvs.into_iter().next(), revision))
    }

    async fn range(&self, r: RangeRequest) -> Result<RangeResponse, Status> {
        let caller = self.caller().await?;
        self.kv().read_range(&r, caller.as_ref()).await
    }

    async fn caller(&self) -> Result<Option<Caller>, Status> {
        self.credentials.caller(&self.node).await
    }

    fn kv(&self) -> KvService {
        KvService { node: Arc::clone(&self.node) }
    }
}

fn deletion(key: Bytes, created: i64) -> TxnRequest {
    let delete = DeleteRangeRequest { key: key.clone(), ..Default::default() };
    if_created(key, created, Request::RequestDeleteRange(delete), None)
}

fn if_created(key: Bytes, at: i64, then: Request, otherwise: Option<Request>) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key,
        target_union: Some(TargetUnion::CreateRevision(at)),
        ..Default::default()
    };
    let op = |request| RequestOp { request: Some(request) };
    TxnRequest {
        compare: vec![compare],
        success: vec![op(then)],
        failure: otherwise.map(op).into_iter().collect(),
    }
}

/// What all keys of a line begin with.
pub fn below(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

fn first_created(prefix: &[u8]) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: etcd_api::prefix_end(prefix).into(),
        sort_target: SortTarget::Create as i32,
        sort_order: SortOrder::Ascend as i32,
        limit: 1,
        ..Default::default()
    }
}

/// Waits until there is no such key, or only one that was created later.
async fn gone(node: &Node, key: &[u8], before: i64) {
    let mut changes = Changes::of(node, KeyRange::One(key.to_vec()));
    let is_there = || {
        let state = node.machine.read();
        let now = state.store.index.get(key).and_then(|history| history.at(i64::MAX));
        now.is_some_and(|version| version.create < before)
    };
    while is_there() {
        changes.next().await;
    }
}

/// Tells when keys change, without saying how: whoever waits looks for itself.
pub struct Changes<'a> {
    node: &'a Node,
    queue: Queue,
    watcher: u64,
}

impl<'a> Changes<'a> {
    /// Changes of these keys from now on.
    pub fn of(node: &'a Node, keys: KeyRange) -> Self {
        let queue = node.machine.hub.open_stream();
        let watcher = node.machine.hub.register(queue.id, keys, 0).watcher;
        Self { node, queue, watcher }
    }

    /// Waits for the next one. Several may be told as one.
    pub async fn next(&mut self) {
        // The hub keeps the other end for as long as this stream is open.
        let _ = self.queue.rx.recv().await;
        while self.queue.rx.try_recv().is_ok() {}
        // What a full queue lost is told by what had filled it.
        self.node.machine.hub.resume(self.watcher);
    }
}

impl Drop for Changes<'_> {
    fn drop(&mut self) {
        self.node.machine.hub.cancel(self.watcher);
        self.node.machine.hub.close_stream(self.queue.id);
    }
}
