//! Range, Put, DeleteRange, Txn, Compact.

use std::sync::Arc;

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::kv_server::Kv;
use etcd_api::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::caller::{administrator, caller};
use super::{Answer, checks};
use crate::access::check::Check;
use crate::machine::State;
use crate::machine::read::damaged;
use crate::machine::waiters::Outcome;
use crate::metrics::Counted;
use crate::mvcc::txn::{TxnError, is_read_only, read_txn};
use crate::node::Node;
use crate::pb::Caller;
use crate::pb::proposal::Op;

/// Keys in one piece of a streamed range.
const STREAM_KEYS: i64 = 512;

/// The KV service.
pub struct KvService {
    /// The member.
    pub node: Arc<Node>,
}

/// An outcome of another kind than the proposal's cannot happen; if it does, it is a bug here.
fn mismatch(outcome: Outcome) -> Status {
    Status::internal(format!("unexpected outcome {outcome:?}"))
}

impl KvService {
    /// Answers a range request.
    pub async fn read_range(
        &self,
        r: &RangeRequest,
        caller: Option<&Caller>,
    ) -> Result<RangeResponse, Status> {
        checks::range(r)?;
        self.node.must_be_sound()?;
        self.node.metrics.count(Counted::Range);
        if !r.serializable {
            self.node.linearize().await?;
        }
        let machine = &self.node.machine;
        if machine.is_guarded() {
            check(&machine.read(), caller).read(&r.key, &r.range_end)?;
        }
        let mut response = machine.range(r).await?;
        if machine.is_guarded() {
            machine.read().access.is_still(caller)?;
        }
        self.node.fill(&mut response.header);
        Ok(response)
    }

    /// Carries out a transaction.
    pub async fn run_txn(
        &self,
        r: TxnRequest,
        caller: Option<Caller>,
    ) -> Result<TxnResponse, Status> {
        checks::txn(&r, self.node.config.max_txn_ops)?;
        self.node.metrics.count(Counted::Txn);
        let mut response = if is_read_only(&r) {
            self.read_only_txn(&r, caller.as_ref()).await?
        } else {
            match self.node.propose_as(Op::Txn(r), caller).await? {
                Outcome::Txn(response) => response,
                other => return Err(mismatch(other)),
            }
        };
        self.node.fill(&mut response.header);
        Ok(response)
    }

    async fn read_only_txn(
        &self,
        r: &TxnRequest,
        caller: Option<&Caller>,
    ) -> Result<TxnResponse, Status> {
        self.node.must_be_sound()?;
        self.node.linearize().await?;
        let machine = &self.node.machine;
        let answer = {
            let state = machine.read();
            check(&state, caller).txn(r)?;
            read_txn(&state.store, r, machine.log.files().as_ref())
        };
        match answer {
            Ok(response) => Ok(response),
            Err(TxnError::Etcd(e)) => Err(e.into()),
            Err(TxnError::Read(e)) => Err(damaged(&e)),
        }
    }
}

fn check<'a>(state: &'a State, caller: Option<&'a Caller>) -> Check<'a> {
    Check { access: &state.access, store: &state.store, caller }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, r: Request<RangeRequest>) -> Answer<RangeResponse> {
        let caller = caller(&self.node, &r).await?;
        self.read_range(r.get_ref(), caller.as_ref()).await.map(Response::new)
    }

    type RangeStreamStream = ReceiverStream<Result<RangeStreamResponse, Status>>;

    async fn range_stream(&self, r: Request<RangeRequest>) -> Answer<Self::RangeStreamStream> {
        let caller = caller(&self.node, &r).await?;
        let r = r.into_inner();
        checks::range(&r)?;
        self.node.must_be_sound()?;
        let filtered = r.min_mod_revision != 0
            || r.max_mod_revision != 0
            || r.min_create_revision != 0
            || r.max_create_revision != 0;
        let sorted = r.sort_order != 0 && (r.sort_order != 1 || r.sort_target != 0);
        if filtered || sorted {
            let text = "RangeStream does not support custom sort orders or revision filters";
            return Err(Status::unimplemented(text));
        }
        if !r.serializable {
            self.node.linearize().await?;
        }
        check(&self.node.machine.read(), caller.as_ref()).read(&r.key, &r.range_end)?;
        let (tx, rx) = tokio::sync::mpsc::channel(2);
        let node = Arc::clone(&self.node);
        tokio::spawn(async move {
            if let Err(status) = stream_range(&node, r, caller.as_ref(), &tx).await {
                // The client may be gone.
                let _ = tx.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn put(&self, r: Request<PutRequest>) -> Answer<PutResponse> {
        let caller = caller(&self.node, &r).await?;
        let r = r.into_inner();
        checks::put(&r)?;
        self.node.metrics.count(Counted::Put);
        match self.node.propose_as(Op::Put(r), caller).await? {
            Outcome::Put(mut response) => {
                self.node.fill(&mut response.header);
                Ok(Response::new(response))
            }
            other => Err(mismatch(other)),
        }
    }

    async fn delete_range(&self, r: Request<DeleteRangeRequest>) -> Answer<DeleteRangeResponse> {
        let caller = caller(&self.node, &r).await?;
        let r = r.into_inner();
        checks::delete_range(&r)?;
        self.node.metrics.count(Counted::Delete);
        match self.node.propose_as(Op::DeleteRange(r), caller).await? {
            Outcome::DeleteRange(mut response) => {
                self.node.fill(&mut response.header);
                Ok(Response::new(response))
            }
            other => Err(mismatch(other)),
        }
    }

    async fn txn(&self, r: Request<TxnRequest>) -> Answer<TxnResponse> {
        let caller = caller(&self.node, &r).await?;
        self.run_txn(r.into_inner(), caller).await.map(Response::new)
    }

    async fn compact(&self, r: Request<CompactionRequest>) -> Answer<CompactionResponse> {
        let caller = administrator(&self.node, &r).await?;
        let r = r.into_inner();
        let physical = r.physical;
        let outcome = self.node.propose_as(Op::Compact(r), caller).await?;
        let Outcome::Done(revision) = outcome else {
            return Err(mismatch(outcome));
        };
        while physical && self.node.machine.sweep_some() {
            tokio::task::yield_now().await;
        }
        Ok(Response::new(CompactionResponse { header: Some(self.node.header(revision)) }))
    }
}

/// Sends a range in pieces, all at the revision at which it began.
async fn stream_range(
    node: &Node,
    mut r: RangeRequest,
    caller: Option<&Caller>,
    out: &tokio::sync::mpsc::Sender<Result<RangeStreamResponse, Status>>,
) -> Result<(), Status> {
    let mut left = if r.limit > 0 { r.limit } else { i64::MAX };
    let mut total = None;
    let mut now = None;
    loop {
        r.limit = left.min(STREAM_KEYS);
        let mut piece = node.machine.range(&r).await?;
        node.machine.read().access.is_still(caller)?;
        let revision = *now.get_or_insert(piece.header.as_ref().map_or(0, |h| h.revision));
        if r.revision == 0 {
            r.revision = revision;
        }
        let count = *total.get_or_insert(piece.count);
        left -= piece.kvs.len() as i64;
        let done = !piece.more || left == 0 || piece.kvs.is_empty();
        if let Some(last) = piece.kvs.last() {
            let mut next = last.key.to_vec();
            next.push(0);
            r.key = next.into();
        }
        piece.count = 0;
        if done {
            piece.header = Some(node.header(revision));
            piece.count = count;
        } else {
            piece.header = None;
            piece.more = false;
        }
        let message = RangeStreamResponse { range_response: Some(piece) };
        if out.send(Ok(message)).await.is_err() || done {
            return Ok(());
        }
        if node.machine.read().store.compacted > r.revision {
            return Err(EtcdError::Compacted.into());
        }
    }
}
